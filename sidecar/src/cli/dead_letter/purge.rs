//! `mosquitto-rocketmq dead-letter purge`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use super::{PurgeArgs, in_dir, moment};
use crate::dead_letter::{Filter, find, remove, remove_all};

pub(super) fn run(dir: &Path, args: &PurgeArgs) -> anyhow::Result<ExitCode> {
    let failed = |error| in_dir(dir, &error);
    let ids = &args.which.ids;
    let removed = if !ids.is_empty() {
        let there = find(dir, ids).map_err(failed)?;
        if let Some(id) = ids
            .iter()
            .find(|id| there.iter().all(|letter| letter.id != **id))
        {
            bail!("there is no dead letter {id} (any more); nothing is removed");
        }
        remove(dir, ids).map_err(failed)?
    } else if args.which.all || args.older_than.is_some() {
        let filter = Filter {
            before_ms: moment("--older-than", args.older_than.as_ref())?,
            ..args.which.filter.filter()
        };
        remove_all(dir, &filter).map_err(failed)?
    } else {
        bail!("which ones? Give their ids, --all or --older-than TIME");
    };
    writeln!(std::io::stdout(), "{removed} dead letters removed")?;
    Ok(ExitCode::SUCCESS)
}
