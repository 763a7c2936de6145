// The cells of benches/visibility_cells.rs as a careful author would script them: the official client for PostgREST,
// node-postgres for SQL, one client an identity, as many requests at once as the prober has.
//
// THROUGHLINE_NODE_MODULES  folder with @supabase/supabase-js, pg and ws
// argv[2]                   a JSON file: what visibility_cells.rs calls `Task`
//
// It makes a row in each table, asks every cell, removes the rows, looks again, and writes one line of JSON:
// {cells, wrong, left}. `wrong` holds the first few cells that came out otherwise than expected.

import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.THROUGHLINE_NODE_MODULES, 'resolve-from-here.js'));
const { createClient } = require('@supabase/supabase-js');
const pg = require('pg');
const ws = require('ws');

const REQUESTS_AT_ONCE = 16;
const MAKES_AT_ONCE = 8;
const WRONG_MAX = 5;

const task = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const run = randomUUID();
const tag = `throughline:${run}`;
const key = randomUUID();
const org = randomUUID();

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const minted = (claims) => {
  const text = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
  return `${text}.${createHmac('sha256', task.jwtSecret).update(text).digest('base64url')}`;
};
const tenant = (organization) => ({
  role: 'authenticated',
  sub: randomUUID(),
  org_id: organization,
  exp: Math.floor(Date.now() / 1000) + 3600,
});
const identity = (name, claims, token, owns) => {
  // The client wants a WebSocket, used or not, and Node.js has one only from 22 on.
  const options = { accessToken: async () => token, realtime: { transport: ws } };
  const client = createClient(task.url, task.anonKey, options);
  const settings = [['role', claims.role], ['request.jwt.claims', JSON.stringify(claims)], ['statement_timeout', '3000']];
  const guise = `select ${settings.map(([k, v]) => `set_config(${pg.escapeLiteral(k)}, ${pg.escapeLiteral(v)}, true)`)}`;
  return { name, client, guise, owns };
};
const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
const [a, b] = [tenant(org), tenant(randomUUID())];
const identities = [
  identity('anon', claimsOf(task.anonKey), task.anonKey, false),
  identity('tenant_a', a, minted(a), true),
  identity('tenant_b', b, minted(b), false),
  identity('service_role', claimsOf(task.serviceRoleKey), task.serviceRoleKey, true),
];
const service = identities[3].client;

const connected = async (url) => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
};
const prober = await connected(task.proberUrl);
const authenticator = await connected(task.authenticatorUrl);

const atOnce = async (items, limit, work) => {
  const rest = items[Symbol.iterator]();
  const worker = async () => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: limit }, worker));
};

const quoted = (table) => `public.${pg.escapeIdentifier(table)}`;
const row = (id) => ({ id, org_id: org, note: 'synthetic', tags: [tag] });
const entered = new Map(task.tables.map((table) => [table, [key]]));

// Making: never over somebody else's row, and looked at afterwards.
await atOnce(task.tables, MAKES_AT_ONCE, async (table) => {
  const there = await prober.query(`select 1 from ${quoted(table)} where id = $1`, [key]);
  if (there.rowCount > 0) throw new Error(`${table} has the row already`);
  const { error } = await service.from(table).insert(row(key));
  if (error) throw new Error(`${table}: ${error.message}`);
  const ours = await prober.query(`select 1 from ${quoted(table)} where id = $1 and $2 = any(tags)`, [key, tag]);
  if (ours.rowCount !== 1) throw new Error(`${table} has no row of this run`);
});

// Asking. An answer is a row (true), nothing (false), or a code.
const bySql = async ({ guise }, statement) => {
  try {
    const results = await authenticator.query(`${guise}; ${statement}; rollback`);
    return results[1].rowCount > 0;
  } catch (error) {
    return error.code;
  }
};
const tagsAgain = pg.escapeLiteral(`{"${tag}"}`);
const counted = ({ error, count }) => (error ? error.code : count > 0);
const pairs = {
  'sql read': (who, table) => bySql(who, `select id from ${quoted(table)} where id = '${key}' limit 1`),
  'sql update': (who, table) => bySql(who, `update ${quoted(table)} set tags = ${tagsAgain} where id = '${key}'`),
  'postgrest read': async ({ client }, table) => {
    const { data, error } = await client.from(table).select('id').eq('id', key).limit(1);
    return error ? error.code : data.length > 0;
  },
  'postgrest update': async ({ client }, table) =>
    counted(await client.from(table).update({ tags: [tag] }, { count: 'exact' }).eq('id', key)),
  'postgrest insert': async ({ client }, table) => {
    const id = randomUUID();
    entered.get(table).push(id);
    return counted(await client.from(table).insert(row(id), { count: 'exact' }));
  },
};

const wrong = [];
let cells = 0;
const ask = async (pair, who, table) => {
  const seen = await pairs[pair](who, table);
  cells += 1;
  const expected = who.owns ? true : pair === 'postgrest insert' ? '42501' : false;
  if (seen !== expected && wrong.length < WRONG_MAX) wrong.push({ pair, identity: who.name, table, seen });
};
const questions = (names) =>
  task.tables.flatMap((table) => names.flatMap((pair) => identities.map((who) => [pair, who, table])));
const asked = (names, limit) => atOnce(questions(names), limit, (question) => ask(...question));
await Promise.all([
  asked(['sql read', 'sql update'], REQUESTS_AT_ONCE),
  asked(['postgrest read'], REQUESTS_AT_ONCE).then(() =>
    asked(['postgrest update', 'postgrest insert'], REQUESTS_AT_ONCE),
  ),
]);

// Removing: by key and tag, and looked at afterwards.
let left = 0;
for (const table of task.tables) {
  const ids = entered.get(table);
  await prober.query(`delete from ${quoted(table)} where id = any($1) and $2 = any(tags)`, [ids, tag]);
  const still = await prober.query(`select count(*)::int as left from ${quoted(table)} where id = any($1)`, [ids]);
  left += still.rows[0].left;
}
await Promise.all([prober.end(), authenticator.end()]);
process.stdout.write(`${JSON.stringify({ cells, wrong, left })}\n`);
