//! Java processes of the benchmark: what `bench/java` has, with RocketMQ's and Paho's jars.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Guard;
use crate::mosquitto::Setup;

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A Java process that is spoken to line by line. It ends with this value.
pub(crate) struct Java {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    process: Guard,
    name: String,
    log: PathBuf,
}

impl Java {
    /// Starts `arguments` (the class first). What it says on stderr goes to `name`.log in the run's folder.
    pub(crate) fn start(
        setup: &Setup,
        name: &str,
        options: &[&str],
        arguments: &[String],
    ) -> Result<Self> {
        let mut class_path = setup.classes.display().to_string();
        for jars in &setup.jars {
            class_path += &format!(":{}/*", jars.display());
        }
        let log = setup.dir.join(format!("{name}.log"));
        let mut command = Command::new("java");
        command
            .args(options)
            .args(["-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"])
            .arg(format!("-Duser.home={}", setup.dir.display()))
            .args(["-cp", &class_path])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?);
        let mut process = Guard::spawn(name, &mut command, STOP_TIMEOUT)?;
        let commands = process.child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(process.child.stdout.take().context("no stdout")?);
        Ok(Java {
            commands,
            answers,
            process,
            name: name.to_owned(),
            log,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Writes a line and reads one.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.commands, "{line}")
            .with_context(|| format!("{line}: {} is gone", self.name))?;
        self.read_line()
    }

    /// Reads a line, which must be this one.
    pub(crate) fn expect(&mut self, wanted: &str) -> Result<()> {
        let line = self.read_line()?;
        if line != wanted {
            bail!("{} said {line:?} rather than {wanted:?}", self.name);
        }
        Ok(())
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} ended; it said:\n{log}", self.name);
        }
        Ok(line.trim_end().to_owned())
    }
}
