-- PostgREST was redeployed with its default schema list.
-- inject
alter role authenticator set pgrst.db_schemas = 'public';
notify pgrst, 'reload config';
notify pgrst, 'reload schema';
-- clear
alter role authenticator reset pgrst.db_schemas;
notify pgrst, 'reload config';
notify pgrst, 'reload schema';
