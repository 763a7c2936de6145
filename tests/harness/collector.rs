//! An OTLP/HTTP receiver, as far as a trace exporter sees one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::task::JoinHandle;

/// The receiver; it ends with this value.
pub(crate) struct Collector {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Bytes>>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Opens it.
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&taken));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, taken, task }
    }

    /// The one request that has come, as its bytes and as what they mean.
    pub(crate) fn only(&self) -> (Bytes, ExportTraceServiceRequest) {
        let taken = self.taken.lock().unwrap();
        let [body] = taken.as_slice() else {
            panic!("{} requests came", taken.len())
        };
        (
            body.clone(),
            ExportTraceServiceRequest::decode(body.clone()).unwrap(),
        )
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(taken): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes) -> StatusCode {
    taken.lock().unwrap().push(body);
    StatusCode::OK
}
