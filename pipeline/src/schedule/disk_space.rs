//! What to say when the disk is full: how much space there is, how much is needed, and what can go.

use super::run::Run;
use super::scheduler::Status;
use crate::keys::builder::{Entry, Known as _};
use crate::keys::tasks::Pass;
use crate::spec::error::StageError;
use crate::spec::run_error::is_full_disk;
use crate::spec::units::bytes;
use crate::store::gc::unused;

impl Run<'_> {
    /// The error with advice, when it is a full disk that nobody has advised on.
    pub(super) fn advise_on_disk_space(&self, cause: StageError) -> StageError {
        if cause.advice().is_some() || !is_full_disk(&cause) {
            return cause;
        }
        let store = &self.session.store;
        let text = advice(store.free(), self.left_to_write(), self.unused());
        let (name, here) = (store.name(), store.workdir().root().display().to_string());
        let moves = if name == here {
            format!("The store is {name}: `store` in the manifest moves it to another disk.")
        } else {
            format!("What this machine keeps of {name} is in {here}: LLAVM_CACHE moves it to another disk.")
        };
        cause.help(format!("{text} {moves} Then run the same command again: finished partitions are kept."))
    }

    /// Bytes of the store that `gc` could drop now; 0 where that is unknown.
    fn unused(&self) -> u64 {
        let made = self.tasks.all.iter().enumerate().filter_map(|(id, task)| {
            let Entry { key, digest, .. } = self.host.scheduler.entry(id)?;
            Some((self.session.name(task.node), key, digest))
        });
        unused(self.session.store.as_ref(), made).unwrap_or(0)
    }

    /// Bytes of the tables that are still to be made, were they like those that are there. `None` while none is.
    fn left_to_write(&self) -> Option<u64> {
        let (mut left, mut is_known) = (0, false);
        for node in (0..self.session.graph.nodes.len()).filter(|node| self.session.is_stored(*node)) {
            let tasks = self.tasks.of(node, Pass::Main);
            let is_done = |id: &usize| matches!(self.host.scheduler.status(*id), Status::Done { .. });
            let there: Vec<usize> = tasks.clone().filter(is_done).collect();
            let bytes = there.iter().filter_map(|id| Some(self.record(*id).ok()??.bytes));
            let (bytes, n) = bytes.fold((0, 0), |(bytes, n), more| (bytes + more, n + 1));
            if let Some(each) = u64::checked_div(bytes, n) {
                is_known = true;
                left += each * (tasks.len() - there.len()) as u64;
            }
        }
        is_known.then_some(left)
    }
}

fn advice(free: Option<u64>, needed: Option<u64>, unused: u64) -> String {
    let free = free.map_or_else(String::new, |free| format!("{} are free", bytes(free)));
    let needed = match needed {
        None | Some(0) => String::new(),
        Some(needed) => format!("about {} are still needed", bytes(needed)),
    };
    let figures: Vec<String> = [free, needed].into_iter().filter(|text| !text.is_empty()).collect();
    let figures = if figures.is_empty() { String::new() } else { format!("{}. ", figures.join(", ")) };
    let unused = match unused {
        0 => "The store holds nothing that `llavm gc MANIFEST` could drop: free space elsewhere.".to_owned(),
        unused => format!("`llavm gc MANIFEST` drops {} that no manifest uses.", bytes(unused)),
    };
    format!("{figures}{unused}")
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn a_full_disk_is_reported_with_what_is_free_needed_and_unused() {
        insta::assert_snapshot!(
            advice(Some(5 << 20), Some(90 << 30), 3 << 30),
            @"5.0 MiB are free, about 90.0 GiB are still needed. `llavm gc MANIFEST` drops 3.0 GiB that no manifest uses."
        );
        insta::assert_snapshot!(
            advice(None, None, 0),
            @"The store holds nothing that `llavm gc MANIFEST` could drop: free space elsewhere."
        );
    }
}
