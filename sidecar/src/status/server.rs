//! The listeners.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::rates::SAMPLE_EVERY;
use super::{Source, page};
use crate::cli::percent;
use crate::cluster::report::Wanted;
use crate::dead_letter::replay::{IDS_MAX, Request};
use crate::health::{self, Judge};

/// Name of the socket in the spool.
pub(crate) const SOCKET: &str = "sidecar.sock";

/// Why the status can't be offered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// An address that others than this machine can reach.
    #[error(
        "http_listen {0}: only loopback addresses (127.0.0.1 or [::1]) in this version, because nothing asks for a password there"
    )]
    NotLoopback(SocketAddr),
    /// The address can't be listened on.
    #[error("http_listen {address}: {source}; choose another port, or leave the option out")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket in the spool can't be made.
    #[error("{}: {source}", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The running listeners. They end when this is dropped.
pub(crate) struct Servers {
    tasks: Vec<JoinHandle<()>>,
    socket: PathBuf,
    /// Where TCP listens, with the port that the system chose for port 0.
    pub(crate) tcp: Option<SocketAddr>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Servers {
    /// Listens on the socket in the spool and, when given, on a loopback address.
    ///
    /// # Errors
    /// When one of them can't be listened on.
    pub(crate) async fn start(
        source: Arc<Source>,
        spool_dir: &Path,
        http_listen: Option<SocketAddr>,
    ) -> Result<Servers, ListenError> {
        let socket = spool_dir.join(SOCKET);
        let router = router(Arc::clone(&source));
        let mut servers = Servers {
            tasks: Vec::new(),
            socket: socket.clone(),
            tcp: None,
        };
        let unix = listen_unix(&socket).map_err(|error| ListenError::Unix {
            path: socket,
            source: error,
        })?;
        // Nothing asks for a password on TCP.
        let unix_router = router.clone().merge(commands(source.clone()));
        servers.tasks.push(tokio::spawn(async move {
            ended("the socket", axum::serve(unix, unix_router).await)
        }));
        if let Some(address) = http_listen {
            if !address.ip().is_loopback() {
                return Err(ListenError::NotLoopback(address));
            }
            let fail = |source| ListenError::Tcp { address, source };
            let tcp = TcpListener::bind(address).await.map_err(fail)?;
            servers.tcp = Some(tcp.local_addr().map_err(fail)?);
            servers.tasks.push(tokio::spawn(async move {
                ended("http_listen", axum::serve(tcp, router).await)
            }));
        }
        let judged = Arc::clone(&source);
        servers.tasks.push(tokio::spawn(async move {
            let mut judge = Judge::default();
            let mut every = tokio::time::interval(health::LOOK_EVERY);
            // After a pause (a stopped process) it goes on from now.
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                judged.judge(&mut judge);
            }
        }));
        servers.tasks.push(tokio::spawn(async move {
            let mut every = tokio::time::interval(SAMPLE_EVERY);
            loop {
                every.tick().await;
                source.sample();
            }
        }));
        Ok(servers)
    }
}

fn ended(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::error!("status on {what} ended: {error}");
    }
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // The spool's lock is ours by now, so a socket that is there is a dead one's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The directory is 0700 already; this is for one that somebody opened up.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where dead letters are replayed.
pub(crate) const REPLAY: &str = "/v1/dead-letter/replay";

/// Where it is told which client is where.
pub(crate) const CLIENTS: &str = "/v1/clients";

/// What is only for those who may open the socket: what changes something, and what tells of the clients.
fn commands(source: Arc<Source>) -> Router {
    Router::new()
        .route(REPLAY, post(replay))
        .route(CLIENTS, get(clients))
        .with_state(source)
}

async fn clients(State(source): State<Arc<Source>>, uri: Uri) -> Response {
    let Some(cluster) = source.cluster() else {
        let error = "this node belongs to no cluster (plugin_opt_cluster)\n";
        return (StatusCode::NOT_FOUND, error).into_response();
    };
    Json(cluster.clients(&wanted(uri.query().unwrap_or_default()))).into_response()
}

/// The clients that `id=…&node=…&after=…` asks for; the values are percent-encoded.
fn wanted(query: &str) -> Wanted {
    let mut wanted = Wanted::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent::decode(value);
        match name {
            "id" => wanted.id = value,
            "node" => wanted.node = value,
            "after" => wanted.after = value,
            _ => {}
        }
    }
    wanted
}

async fn replay(State(source): State<Arc<Source>>, Json(request): Json<Request>) -> Response {
    let Some(replayer) = source.replayer() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the sidecar is starting\n").into_response();
    };
    if request.ids.len() > IDS_MAX {
        let error = format!("at most {IDS_MAX} letters at once\n");
        return (StatusCode::BAD_REQUEST, error).into_response();
    }
    match replayer.replay(request.ids).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            let error = format!("the dead letters can't be read: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, error).into_response()
        }
    }
}

fn router(source: Arc<Source>) -> Router {
    Router::new()
        .route(
            "/",
            get(|State(source): State<Arc<Source>>| async move {
                (
                    [(CACHE_CONTROL, "no-store")],
                    Html(page::render(&source.report())),
                )
                    .into_response()
            }),
        )
        .route(
            "/v1/status",
            get(|State(source): State<Arc<Source>>| async move {
                ([(CACHE_CONTROL, "no-store")], Json(source.report())).into_response()
            }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(|State(source): State<Arc<Source>>| async move {
                let health = source.health();
                let code = match health.state {
                    health::State::Ok => StatusCode::OK,
                    health::State::Degraded => StatusCode::SERVICE_UNAVAILABLE,
                };
                (code, [(CACHE_CONTROL, "no-store")], Json(health)).into_response()
            }),
        )
        .with_state(source)
}

#[cfg(test)]
mod tests {
    use protocol::config::Config;

    use super::*;
    use crate::cli::http;
    use crate::metrics::Metrics;
    use crate::status::report::Report;

    fn source(spool: &Path) -> Arc<Source> {
        let spool = spool.display().to_string();
        let options = [
            ("namesrv", "127.0.0.1:9876"),
            ("node_id", "edge-1"),
            ("spool_dir", &spool),
            ("uplink", "a/# A"),
            ("downlink", "B b"),
        ];
        let config = Config::from_options(options.into_iter()).unwrap();
        Arc::new(Source::new(Arc::new(config), Arc::new(Metrics::default())))
    }

    async fn fetch(spool: &Path, path: &'static str) -> (u16, String) {
        let socket = spool.join(SOCKET);
        tokio::task::spawn_blocking(move || http::get(&socket, path))
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn the_socket_is_private_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::start(source(dir.path()), dir.path(), None)
            .await
            .unwrap();
        let mode = std::fs::metadata(dir.path().join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fetch(dir.path(), "/healthz").await,
            (200, "ok\n".to_owned())
        );
        // Nothing has answered yet and no Mosquitto has the spool.
        loop {
            let (code, json) = fetch(dir.path(), "/readyz").await;
            let health: crate::health::Health = serde_json::from_str(&json).unwrap();
            if code == 503 {
                assert_eq!(health.reasons[0].what, crate::health::what::MOSQUITTO_AWAY);
                break;
            }
            assert_eq!(code, 200, "{json}");
        }
        assert_eq!(fetch(dir.path(), "/nothing").await.0, 404);
        let (_, json) = fetch(dir.path(), "/v1/status").await;
        let report: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(report.node_id, "edge-1");
        assert_eq!(
            report.uplink.rules.len(),
            1,
            "a rule shows before its first message"
        );
        let (_, html) = fetch(dir.path(), "/").await;
        assert!(html.contains("edge-1") && html.contains("a/# A"));
        drop(servers);
        assert!(!dir.path().join(SOCKET).exists());
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_sidecar_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let _servers = Servers::start(source(dir.path()), dir.path(), None)
            .await
            .unwrap();
        assert_eq!(fetch(dir.path(), "/healthz").await.0, 200);
    }

    #[test]
    fn a_query_says_which_clients_are_wanted() {
        let (id, node, after) = ("a/b c&d=%ü", "edge-1", "x");
        let query = format!(
            "id={}&node={node}&after={after}&else=1",
            percent::encode(id)
        );
        let all = [id, node, after].map(|text| Some(text.to_owned()));
        let wanted = wanted(&query);
        assert_eq!([wanted.id, wanted.node, wanted.after], all);
        assert_eq!(super::wanted(""), Wanted::default());
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        let dir = tempfile::tempdir().unwrap();
        let outside = Servers::start(
            source(dir.path()),
            dir.path(),
            Some("0.0.0.0:0".parse().unwrap()),
        )
        .await;
        assert!(matches!(outside.err(), Some(ListenError::NotLoopback(_))));
        let inside = Servers::start(
            source(dir.path()),
            dir.path(),
            Some("127.0.0.1:0".parse().unwrap()),
        )
        .await
        .unwrap();
        assert!(inside.tcp.is_some_and(|address| address.port() != 0));
    }
}
