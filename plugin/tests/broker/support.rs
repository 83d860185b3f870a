//! A broker with the plugin, in a directory of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use handoff::{Counters, LogOptions, Reader, ReaderOptions, Writer};
use protocol::message::{Message, UplinkFrame};

/// Generous: these tests run beside others on small machines.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until `check` gives something.
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A Mosquitto to test with.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) name: &'static str,
    command: PathBuf,
}

/// All that are at hand; 2.0.11 always.
pub(crate) fn versions() -> Vec<Version> {
    let named = |name, variable: &str| {
        std::env::var_os(variable).map(|command| Version {
            name,
            command: command.into(),
        })
    };
    let first = named("2.0.11", "MRMQ_MOSQUITTO_2_0_11").unwrap_or_else(|| Version {
        name: "2.0.11",
        command: "/usr/sbin/mosquitto".into(),
    });
    [
        Some(first),
        named("2.0.21", "MRMQ_MOSQUITTO_2_0_21"),
        named("2.1.2", "MRMQ_MOSQUITTO_2_1_2"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// 2.0.11.
pub(crate) fn oldest() -> Version {
    versions().remove(0)
}

fn plugin() -> PathBuf {
    let deps = std::env::current_exe()
        .expect("a path")
        .parent()
        .expect("a directory")
        .to_owned();
    let places = [
        deps.join("libmosquitto_rocketmq.so"),
        deps.join("../libmosquitto_rocketmq.so"),
    ];
    places
        .iter()
        .find(|path| path.exists())
        .expect("cargo has built the plugin")
        .clone()
}

/// A port that is free now; the tests of one run don't share it.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// How a broker is to be set up.
pub(crate) struct Setup {
    pub(crate) version: Version,
    dir: tempfile::TempDir,
    port: u16,
    before: String,
    after: String,
    options: String,
    with_plugin: bool,
}

impl Setup {
    /// Anonymous clients, no sidecar, everything below `up/` goes up.
    pub(crate) fn new(version: &Version) -> Setup {
        let mut setup = Setup::bare(version);
        setup
            .option("namesrv", "127.0.0.1:9876")
            .option("node_id", "node")
            .option("sidecar", "external");
        setup.option("uplink", "up/# TOPIC");
        setup
    }

    /// The same without any option but the spool.
    pub(crate) fn bare(version: &Version) -> Setup {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!(
            "plugin_opt_spool_dir {}\n",
            dir.path().join("spool").display()
        );
        let (before, after) = (String::new(), "allow_anonymous true\n".to_owned());
        Setup {
            version: version.clone(),
            dir,
            port,
            before,
            after,
            options,
            with_plugin: true,
        }
    }

    /// A Mosquitto without us, to compare with.
    pub(crate) fn without_plugin(version: &Version) -> Setup {
        Setup {
            with_plugin: false,
            ..Setup::bare(version)
        }
    }

    pub(crate) fn option(&mut self, name: &str, value: &str) -> &mut Setup {
        writeln!(self.options, "plugin_opt_{name} {value}").expect("a string");
        self
    }

    /// A line before the listener.
    pub(crate) fn before(&mut self, line: &str) -> &mut Setup {
        self.before += &format!("{line}\n");
        self
    }

    /// A line behind the plugin and its options.
    pub(crate) fn after(&mut self, line: &str) -> &mut Setup {
        self.after += &format!("{line}\n");
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// Starts Mosquitto, and does not wait for it.
    pub(crate) fn launch(self) -> Broker {
        let so = self.path("mosquitto_rocketmq.so");
        if !so.exists() {
            fs::copy(plugin(), &so).expect("copied");
        }
        let conf = format!(
            "user root\nlog_dest stderr\nlog_type all\n{}listener {} 127.0.0.1\n{}{}",
            self.before,
            self.port,
            if self.with_plugin {
                format!("plugin {}\n{}", so.display(), self.options)
            } else {
                String::new()
            },
            self.after
        );
        let conf = self.write("mosquitto.conf", &conf);
        let log = File::create(self.path("log")).expect("a log");
        let child = Command::new(&self.version.command)
            .arg("-c")
            .arg(conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Mosquitto is installed");
        Broker { setup: self, child }
    }

    /// Starts Mosquitto and waits until it serves and ticks.
    pub(crate) fn start(self) -> Broker {
        let mut broker = self.launch();
        until("the broker runs", || {
            assert!(
                broker.ended().is_none(),
                "Mosquitto ended:\n{}",
                broker.log()
            );
            // The first tick says how the broker is woken.
            let ready = if broker.setup.with_plugin {
                "woken"
            } else {
                "running"
            };
            (broker.log().contains(ready)
                && TcpStream::connect(("127.0.0.1", broker.port())).is_ok())
            .then_some(())
        });
        broker
    }
}

/// A running Mosquitto. Killed when it goes out of scope.
pub(crate) struct Broker {
    pub(crate) setup: Setup,
    child: Child,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    pub(crate) fn port(&self) -> u16 {
        self.setup.port
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.setup.path("log")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        until(&format!("`{text}` in the log"), || {
            self.log().contains(text).then_some(())
        });
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Memory of its own, in bytes.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The same with what it has mapped of files.
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: u64 = number.and_then(|kib| kib.parse().ok()).expect("a number");
        kib << 10
    }

    /// SIGTERM, and until it has ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        until("Mosquitto ends", || self.ended())
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.setup.path("spool")
    }

    pub(crate) fn counter(&self, index: usize) -> u64 {
        Counters::open(&self.spool().join("plugin.counters"))
            .expect("the counters page")
            .get(index)
    }

    pub(crate) fn wait_for_counter(&self, index: usize, value: u64) {
        let name = protocol::counters::NAMES[index];
        until(
            &format!("{name} = {value}, it is {}", self.counter(index)),
            || (self.counter(index) == value).then_some(()),
        );
    }

    /// The sidecar's side of the way up.
    pub(crate) fn uplink(&self) -> Uplink {
        Uplink(
            Reader::open(&self.spool().join("uplink"), &ReaderOptions::default())
                .expect("the uplink log"),
        )
    }

    /// The sidecar's side of the way down.
    pub(crate) fn downlink(&self) -> Writer {
        Writer::open(&self.spool().join("downlink"), &LogOptions::default())
            .expect("the downlink log")
    }
}

/// Reads what the plugin appended.
pub(crate) struct Uplink(Reader);

impl Uplink {
    /// The next message, if there is one now: as `topic payload`, with ` will` behind a will.
    pub(crate) fn poll(&mut self) -> Option<String> {
        let frame = self.0.poll().expect("a good log")?;
        let message = Message::decode(frame.payload).expect("a message");
        let will = if message.will { " will" } else { "" };
        Some(format!(
            "{} {}{will}",
            message.topic,
            String::from_utf8_lossy(message.payload)
        ))
    }

    /// The same as the message itself.
    pub(crate) fn with<T>(&mut self, look: impl FnOnce(&Message<'_>) -> T) -> T {
        self.try_with(look).expect("a message")
    }

    /// The same, if there is one now.
    pub(crate) fn try_with<T>(&mut self, look: impl FnOnce(&Message<'_>) -> T) -> Option<T> {
        let frame = self.0.poll().expect("a good log")?;
        Some(look(&Message::decode(frame.payload).expect("a message")))
    }

    /// RocketMQ has taken everything.
    pub(crate) fn release_all(&mut self) {
        while self.0.poll().expect("a good log").is_some() {}
        let position = self.0.position();
        self.0.release(position);
    }

    /// The next frame, which is one that the broker refused, out of the downlink log of this epoch: its reason and its payload.
    pub(crate) fn returned(&mut self, epoch: u64) -> (String, Vec<u8>) {
        until("a frame in the spool", || {
            let frame = self.0.poll().expect("a good log")?;
            match UplinkFrame::decode(frame.payload).expect("a frame") {
                UplinkFrame::Returned(returned) => {
                    assert_eq!(returned.epoch, epoch);
                    Some((returned.reason.to_owned(), returned.payload.to_vec()))
                }
                UplinkFrame::Message(message) => panic!("{message:?}"),
            }
        })
    }

    /// Takes and gives back all that is there; something when a returned frame was among it.
    pub(crate) fn release_until_returned(&mut self) -> Option<()> {
        let mut found = None;
        while let Some(frame) = self.0.poll().expect("a good log") {
            let next = frame.next;
            if let Ok(UplinkFrame::Returned(_)) = UplinkFrame::decode(frame.payload) {
                found = Some(());
            }
            self.0.release(next);
        }
        found
    }

    pub(crate) fn next(&mut self) -> String {
        until("a message in the spool", || self.poll())
    }
}

/// Whether the process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
        .is_ok_and(|line| !line.is_empty())
}
