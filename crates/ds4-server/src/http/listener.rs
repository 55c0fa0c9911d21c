//! Sockets: accepts connections within limits, and stops in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use axum::Router;

use super::front::Front;
use super::guard::Guard;
use super::half_close::ClientWatch;
use super::observe::Observer;
use super::router::{AppState, router};
use super::socket::Socket;
use crate::inference::Inference;
use crate::observe::{Metrics, Trace};
use crate::settings::ServerSettings;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 128;
/// How long connections that are cut off may take to end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The server could not be started.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file for traces cannot be written.
    #[error("cannot write traces to `{path}`")]
    Trace {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A server that accepts connections.
///
/// Until [`open`](Self::open) gives it a model it answers that one is being loaded.
pub struct RunningServer {
    address: SocketAddr,
    settings: ServerSettings,
    front: Arc<Front>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl RunningServer {
    /// Where it listens; tells the port if the system chose it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells clients how far loading is.
    pub fn loading(&self, done: usize, total: usize) {
        self.front.loading(done, total);
    }

    /// Serves this model from now on. Without effect if there is one already.
    pub fn open(&self, inference: Arc<Inference>) {
        let settings = ServerSettings {
            // The port may have been chosen by the system.
            address: self.address,
            ..self.settings.clone()
        };
        let state = AppState::new(settings, inference, Arc::clone(&self.metrics));
        let guard = Arc::clone(self.front.guard());
        self.front.open(router(Arc::new(state), guard));
    }

    /// Stops accepting, lets requests finish for the time of grace, cuts off what is left, and ends.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Starts to listen. Must be called within a tokio runtime.
///
/// # Errors
/// The address cannot be listened on, or traces cannot be written.
pub async fn serve(settings: ServerSettings) -> Result<RunningServer, ServerError> {
    let failed = |source| ServerError::Listen {
        address: settings.address,
        source,
    };
    let metrics = Arc::new(Metrics::new());
    let trace = match &settings.trace {
        None => None,
        Some(path) => {
            let trace =
                Trace::open(path, &settings.api_keys, Arc::clone(&metrics)).map_err(|source| {
                    ServerError::Trace {
                        path: path.display().to_string(),
                        source,
                    }
                })?;
            Some(Arc::new(trace))
        }
    };
    let observer = Observer {
        metrics: Arc::clone(&metrics),
        log: settings.log.clone(),
        trace,
    };
    let listener = TcpListener::bind(settings.address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    let front = Arc::new(Front::new(Arc::new(Guard::new(&settings))));
    let task = tokio::spawn(accept(
        listener,
        settings.clone(),
        Front::router(Arc::clone(&front), observer),
        Arc::clone(&metrics),
        stopped,
    ));
    Ok(RunningServer {
        address,
        settings,
        front,
        metrics,
        stop,
        task,
    })
}

async fn accept(
    listener: TcpListener,
    settings: ServerSettings,
    router: Router,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(settings.max_connections));
    // Named, not guessed from the first bytes: the guess would wait for them without a limit.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        // Who sends nothing more may still wait for the answer.
        .half_close(true)
        // A client that sends its head byte by byte holds a place for no longer than this.
        .header_read_timeout(settings.read_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let graceful = GracefulShutdown::new();
    let (cut, cut_off) = watch::channel(false);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = stopped.changed() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            // No file descriptors left, or the client is gone already: let others end first.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Tokens are small and must not wait for each other.
        let _ = socket.set_nodelay(true);
        let socket = Arc::new(socket);
        let client = ClientWatch::new(Arc::clone(&socket));
        let socket = TokioIo::new(Socket::new(socket, settings.write_timeout));
        let service = TowerToHyperService::new(client.service(router.clone()));
        let connection = builder.serve_connection(socket, service).into_owned();
        let connection = graceful.watch(connection);
        let mut cut_off = cut_off.clone();
        let counted = metrics.connection();
        tokio::spawn(async move {
            tokio::select! {
                // What goes wrong on a connection is the client's to see.
                _ = connection => {}
                _ = cut_off.changed() => {}
                () = client.gone() => {}
            }
            drop(counted);
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(settings.grace, graceful.shutdown()).await;
    // Ends the connections that are left, and with them their turns.
    drop(cut);
    let all = u32::try_from(settings.max_connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_MOMENT, places.acquire_many(all)).await;
}
