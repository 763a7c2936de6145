// Drives the official JavaScript client and tells on stdout, one JSON object a line, what it hears.
//
// THROUGHLINE_NODE_MODULES  folder with @supabase/supabase-js and ws
// REALTIME_URL              the project's URL, under which the client looks for /realtime/v1
// REALTIME_API_KEY          the key of the socket
// REALTIME_CHANNELS         JSON: [{name, token, bindings: [{event, schema, table, filter}]}]
//
// It ends when its standard input does.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.THROUGHLINE_NODE_MODULES, 'resolve-from-here.js'));
const { createClient } = require('@supabase/supabase-js');
const ws = require('ws');

const tell = (channel, kind, what) => process.stdout.write(`${JSON.stringify({ channel, kind, what })}\n`);

for (const { name, token, bindings } of JSON.parse(process.env.REALTIME_CHANNELS)) {
  // A client of its own, because the token belongs to the socket's client.
  const client = createClient(process.env.REALTIME_URL, process.env.REALTIME_API_KEY, {
    accessToken: async () => token,
    realtime: { transport: ws },
  });
  // Without this wait the join may leave before the token is there, and the API key's role subscribes.
  await client.realtime.setAuth();
  const channel = client.channel(name);
  for (const binding of bindings) {
    channel.on('postgres_changes', binding, (change) => tell(name, 'change', change));
  }
  channel.on('system', {}, (message) => tell(name, 'system', message));
  channel.subscribe((status, error) => tell(name, 'status', { status, error: error?.message ?? null }));
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
