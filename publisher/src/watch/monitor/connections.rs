//! The HTTP server, and what a client may take of it: so many connections, each for so long, with one request of so many
//! bytes. Prometheus and probes need no more, and nobody who reaches the port can make it hold more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Most bytes of a request's head: its line and its fields. A longer one is 431.
const MAX_HEAD: usize = 8 * 1_024;

/// Most connections. One more takes the place of the oldest, so that clients that do nothing keep no probe out.
const MAX_CONNECTIONS: usize = 64;

/// Longest time of a connection, in which the request is sent and the answer taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Before the next attempt when the system gives no connection, for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long answers under way may take when the program ends.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until `stopped` resolves, and what is under way then.
pub async fn serve<A>(listener: TcpListener, answer: A, stopped: oneshot::Receiver<()>)
where
    A: Fn(&Request<Incoming>) -> Response<String> + Clone + Send + 'static,
{
    // Nothing is ever sent: the last sender is gone when the last connection is.
    let (open, mut closed) = mpsc::channel::<Infallible>(1);
    let accepting = tokio::spawn(accept(listener, answer, open));
    let _ = stopped.await;
    accepting.abort();
    let _ = timeout(FAREWELL, closed.recv()).await;
}

async fn accept<A>(listener: TcpListener, answer: A, open: mpsc::Sender<Infallible>)
where
    A: Fn(&Request<Incoming>) -> Response<String> + Clone + Send + 'static,
{
    let mut connections = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        connections.retain(|connection: &tokio::task::JoinHandle<()>| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let (answer, open) = (answer.clone(), open.clone());
        connections.push_back(tokio::spawn(async move {
            // A client that is slow, gone or wrong ends its own connection alone.
            let _ = timeout(PATIENCE, converse(stream, answer)).await;
            drop(open);
        }));
    }
}

/// One request and its answer.
async fn converse<A>(stream: TcpStream, answer: A) -> hyper::Result<()>
where
    A: Fn(&Request<Incoming>) -> Response<String>,
{
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(answer(&request))));
    http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        // Whoever has nothing more to send may still read.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
