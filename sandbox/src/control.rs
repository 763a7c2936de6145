//! The channel by which `fault` and `part` commands reach a running supervisor: one JSON line each way over a
//! unix socket that only the supervisor's own user can open.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::state::{StateDir, StateError};
use crate::supervisor::PartName;

/// The longest request, in bytes. The longest that is sent is a tenth of it.
const REQUEST_BYTES_MAX: u64 = 4096;
/// Requests that wait for the supervisor; further ones wait in their sockets.
const QUEUE_MAX: usize = 16;
/// How long a peer may take to send its one line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits for its answer. Starting a part is the slowest thing that can be asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// What can be asked of a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Do something to one part.
    Part {
        /// Which.
        part: PartName,
        /// What.
        action: PartAction,
    },
    /// Break or mend something.
    Fault {
        /// Id from the fault catalogue.
        id: String,
        /// Which of the two.
        action: FaultAction,
    },
}

/// What can be done to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PartAction {
    /// SIGKILL: a crash.
    Kill,
    /// An orderly stop.
    Stop,
    /// Start again, under the same address; answered when it is ready.
    Start,
    /// SIGSTOP: connections are accepted by the kernel and never answered.
    Pause,
    /// SIGCONT.
    Resume,
}

/// What can be done with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FaultAction {
    /// Break it.
    Inject,
    /// Mend it.
    Clear,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why not.
    pub message: String,
}

/// A request on its way to the supervisor's loop, with the place for its answer.
pub type Pending = (Request, oneshot::Sender<Reply>);

/// A command did not reach a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no state file to find it by.
    #[error("no sandbox runs with this state folder: {0}")]
    NoState(#[from] StateError),
    /// The socket is there no more, or nobody listens.
    #[error("the sandbox of this state folder does not answer ({0}); has it ended?")]
    Unreachable(#[from] io::Error),
    /// It answered something else.
    #[error("the sandbox sent an answer that is not understood; is it of another version? ({0})")]
    Answer(#[from] serde_json::Error),
}

/// Sends one request to the sandbox of a state folder and waits for its answer.
///
/// # Errors
/// When no sandbox answers there within a minute and a half.
pub fn ask(state_dir: &Path, request: &Request) -> Result<Reply, ControlError> {
    let state = StateDir::open(state_dir)?.read_state()?;
    let mut stream = UnixStream::connect(&state.control_socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Whether a supervisor listens on this socket.
pub fn is_alive(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Listens on `socket` and hands every request to the receiver. Ends with the runtime.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(socket: &Path) -> io::Result<mpsc::Receiver<Pending>> {
    let listener = tokio::net::UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let (requests, received) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, requests.clone()));
        }
    });
    Ok(received)
}

async fn serve(stream: tokio::net::UnixStream, requests: mpsc::Sender<Pending>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(REQUEST_BYTES_MAX));
    let Ok(Ok(_)) = tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await else {
        return;
    };
    let reply = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            if requests.send((request, answer)).await.is_err() {
                return;
            }
            match answered.await {
                Ok(reply) => reply,
                // The supervisor is stopping; its end closes this socket too.
                Err(_) => return,
            }
        }
        Err(error) => Reply {
            ok: false,
            message: format!("not a request: {error}"),
        },
    };
    if let Ok(mut text) = serde_json::to_string(&reply) {
        text.push('\n');
        let _ = write.write_all(text.as_bytes()).await;
    }
}
