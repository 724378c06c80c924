//! Server and client talk over a real socket, and the server meets those who do not behave.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::agent::State;
use crate::fault::{Kind, sample};
use crate::histogram::{Call, Delta, SeriesKey};

struct Instance {
    state: Arc<State>,
    socket: PathBuf,
    _directory: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Instance {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A directory that the server has to create.
        let socket = directory.path().join("run/helloops.sock");
        let state = Arc::new(State::default());
        let server = Server::bind(&socket, None, Arc::clone(&state))
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Self {
            state,
            socket,
            _directory: directory,
            stop,
            served,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    async fn end(self) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
        assert!(!self.socket.exists());
    }
}

/// What the server answers to these bytes before it closes the connection.
async fn say(socket: &Path, bytes: &'static [u8]) -> String {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn everything_that_is_recorded_can_be_asked_for() {
    let instance = Instance::start().await;
    let client = instance.client();
    let recorded = instance.state.record_fault(sample::panic());
    instance.state.record_fault(sample::exit(3));
    instance.state.add_lost("stacks", 2);
    let key = SeriesKey {
        target: "shop".into(),
        pid: None,
        call: Call(0),
    };
    instance.state.record_latencies([(
        key,
        Delta {
            counts: &[(300, 5)],
            ..Delta::default()
        },
    )]);

    assert_eq!(client.status().await.unwrap(), instance.state.status());
    let panics = FaultQuery {
        kind: Some(Kind::Panic),
        ..FaultQuery::default()
    };
    let faults = client.faults(&panics).await.unwrap();
    assert_eq!(faults.faults, std::slice::from_ref(&recorded));
    assert_eq!((faults.groups.len(), faults.lost["stacks"]), (1, 2));
    let query = HistogramQuery {
        call: Some("re*".to_owned()),
        window: Some("1m".parse().unwrap()),
        ..HistogramQuery::default()
    };
    let histograms = client.histograms(&query).await.unwrap();
    assert_eq!(
        (histograms.series[0].count, histograms.lost["stacks"]),
        (5, 2)
    );

    let one = say(
        &instance.socket,
        b"GET /v1/faults/1 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    );
    let one = one.await;
    let (head, body) = one.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("helloops-version: "),
        "{head}"
    );
    let fault: crate::fault::Fault = serde_json::from_str(body).unwrap();
    assert_eq!(fault, *recorded);
    instance.end().await;
}

#[tokio::test]
async fn followers_see_new_faults_until_the_instance_ends() {
    let instance = Instance::start().await;
    instance.state.record_fault(sample::exit(1));
    let query = FaultQuery {
        target: Some("sh".to_owned()),
        ..FaultQuery::default()
    };
    let mut stream = instance.client().follow_faults(&query).await.unwrap();
    instance.state.record_fault(sample::panic());
    let wanted = instance.state.record_fault(sample::exit(3));
    let Ok(Some(Followed::Fault(fault))) = stream.next().await else {
        panic!("a fault")
    };
    assert_eq!(*fault, *wanted);
    instance.end().await;
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_path_is_served_by_one_instance() {
    let instance = Instance::start().await;
    let error = Server::bind(&instance.socket, None, Arc::default())
        .await
        .unwrap_err();
    let wanted = format!(
        "an agent already serves {} (pid {})",
        instance.socket.display(),
        std::process::id()
    );
    assert!(error.to_string().starts_with(&wanted), "{error}");
    assert!(instance.client().status().await.is_ok());
    let mode = std::fs::metadata(&instance.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let directory = std::fs::metadata(instance.socket.parent().unwrap()).unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o755);
    instance.end().await;
}

#[tokio::test]
async fn of_many_instances_that_want_a_stale_socket_one_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("helloops.sock");
    // A listener that goes without removing its file, as after a kill -9.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            tokio::spawn(async move { Server::bind(&socket, None, Arc::default()).await })
        })
        .collect();
    let mut bound = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(server) => bound.push(server),
            Err(error) => assert!(matches!(error, SocketError::Taken { .. }), "{error}"),
        }
    }
    assert_eq!(bound.len(), 1);
    assert!(socket.exists());
}

#[tokio::test]
async fn what_is_no_socket_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = Server::bind(&file, None, Arc::default()).await.unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let below_a_file = file.join("x.sock");
    let error = Server::bind(&below_a_file, None, Arc::default())
        .await
        .unwrap_err();
    assert!(matches!(error, SocketError::Directory { .. }), "{error}");
    let too_long = directory.path().join("x".repeat(200));
    let error = Server::bind(&too_long, None, Arc::default())
        .await
        .unwrap_err();
    assert!(matches!(error, SocketError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn a_socket_that_another_instance_replaced_is_left_alone() {
    let instance = Instance::start().await;
    std::fs::remove_file(&instance.socket).unwrap();
    let successor = Server::bind(&instance.socket, None, Arc::default())
        .await
        .unwrap();
    let socket = instance.socket.clone();
    let _ = instance.stop.send(());
    instance.served.await.unwrap();
    assert!(socket.exists());
    drop(successor);
    assert!(!socket.exists());
}

#[tokio::test]
async fn wrong_questions_get_an_answer_that_helps() {
    let instance = Instance::start().await;
    for (question, status, wanted) in [
        (
            &b"GET /v2 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"[..],
            "404",
            "/v1/status",
        ),
        (
            b"GET /v1/faults/9 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "404",
            "no fault 9",
        ),
        (
            b"POST /v1/status HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "405",
            "use GET",
        ),
        (
            b"GET /v1/faults?kind=x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "400",
            "panic",
        ),
        (
            b"GET /v1/faults?targte=x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "400",
            "target",
        ),
        (
            b"GET /v1/histograms?window=9d HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "400",
            "24h",
        ),
    ] {
        let answer = say(&instance.socket, question).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let body: ErrorBody = serde_json::from_str(body).unwrap();
        assert!(
            format!("{} {}", body.error, body.next_step).contains(wanted),
            "{body:?}"
        );
    }
    instance.end().await;
}

#[tokio::test]
async fn garbage_does_not_hurt() {
    let instance = Instance::start().await;
    let answer = say(
        &instance.socket,
        b"\x16\x03\x01\x00\xff\xfe garbage\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(100_000));
    let answer = say(&instance.socket, long.leak().as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(instance.client().status().await.is_ok());
    instance.end().await;
}

#[tokio::test]
async fn stuck_clients_do_not_keep_others_out_for_long() {
    let instance = Instance::start().await;
    let stuck: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = UnixStream::connect(&instance.socket).unwrap();
            stream.write_all(b"GET /v1/st").unwrap();
            stream
        })
        .collect();
    let error = instance.client().status().await.unwrap_err();
    assert!(error.to_string().contains("64 clients"), "{error}");
    let since = Instant::now();
    while instance.client().status().await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(stuck);
    instance.end().await;
}

#[tokio::test]
async fn a_client_says_what_is_wrong_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = Client::new(directory.path().join("none.sock"));
    let error = nobody.status().await.unwrap_err().to_string();
    assert!(
        error.contains("no agent answers at") && error.contains("--socket"),
        "{error}"
    );

    let stranger = directory.path().join("stranger.sock");
    let listener = std::os::unix::net::UnixListener::bind(&stranger).unwrap();
    let answers = std::thread::spawn(move || {
        let json = "HTTP/1.1 200 OK\r\nhelloops-version: 9.9.9\r\ncontent-length: 2\r\n\r\n{}";
        for answer in ["SSH-2.0-OpenSSH_9.2\r\n", json] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let client = Client::new(&stranger);
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
    let error = client.status().await.unwrap_err();
    assert!(error.to_string().contains("helloops 9.9.9"), "{error}");
    answers.join().unwrap();
}

/// Becomes another user for the rest of this thread only (the C library's calls would change all
/// threads), then asks.
fn ask_as(uid: u32, gid: u32, groups: &[u32], socket: &Path) -> Result<(), ClientError> {
    let (groups, socket) = (groups.to_vec(), socket.to_owned());
    let asked = std::thread::spawn(move || {
        // SAFETY: the calls take numbers and a valid list; they change only this thread.
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
                0
            );
            assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(Client::new(socket).status()).map(|_| ())
    });
    asked.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_the_own_user_and_the_group_are_answered() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming other users takes root");
        return;
    }
    const NOBODY: u32 = 65_534;
    const GROUP: u32 = 4_242;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = directory.path().join("helloops.sock");
    let server = Server::bind(&socket, Some(GROUP), Arc::default())
        .await
        .unwrap();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    let ask = |uid, gid, groups: &'static [u32]| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || ask_as(uid, gid, groups, &socket))
    };

    let error = ask(NOBODY, NOBODY, &[]).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("join the group `4242`"),
        "{error}"
    );
    ask(NOBODY, GROUP, &[]).await.unwrap().unwrap();
    ask(NOBODY, NOBODY, &[1, GROUP]).await.unwrap().unwrap();
    ask(0, 0, &[]).await.unwrap().unwrap();

    // Even if somebody opens the file to all.
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let error = ask(NOBODY, NOBODY, &[]).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("this user may not ask"),
        "{error}"
    );
}
