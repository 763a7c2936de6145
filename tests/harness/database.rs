//! A look into the sandbox's database that the prober has no part in.

use std::collections::BTreeMap;

use tokio_postgres::{Client, NoTls};

/// A connection as the database's superuser.
pub(crate) struct Database {
    client: Client,
}

impl Database {
    /// Connects.
    pub(crate) async fn connect(superuser_url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(superuser_url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { client }
    }

    /// How many rows each table of the target's schemas has. The sandbox holds nothing but its fixed users
    /// and what runs leave, so two equal counts mean that nothing was left, with a tag or without.
    pub(crate) async fn rows(&self) -> BTreeMap<String, i64> {
        let tables = self
            .client
            .query(
                "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables \
                 where schemaname in ('public', 'api') order by 1",
                &[],
            )
            .await
            .unwrap();
        assert!(tables.len() >= 4, "there are {} tables only", tables.len());
        let counts: Vec<String> = tables
            .iter()
            .map(|row| {
                let table: String = row.get(0);
                format!("select '{table}', count(*) from {table}")
            })
            .collect();
        self.client
            .query(&counts.join(" union all "), &[])
            .await
            .unwrap()
            .into_iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// How many subscriptions of probers Realtime holds: theirs carry a filter on an id, the
    /// worker's does not.
    pub(crate) async fn prober_subscriptions(&self) -> i64 {
        let query = "select count(*) from realtime.subscription where filters::text like '%id=eq.%'";
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap();
    }

    /// Rows, each as its columns' texts.
    pub(crate) async fn texts(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.client.simple_query(query).await.unwrap();
        messages
            .into_iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|index| row.get(index).map(ToOwned::to_owned))
                        .collect(),
                ),
                _ => None,
            })
            .collect()
    }

    /// One value of one row.
    pub(crate) async fn value<T>(&self, query: &str) -> T
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }
}
