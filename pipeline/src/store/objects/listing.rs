//! What lies in the bucket, for whoever removes or checks it.

use super::Objects;
use super::client::Named;
use super::names::what;
use crate::spec::error::StageError;
use crate::store::{Address, Kind, Listed, What};
use std::collections::BTreeMap;

impl Objects {
    /// Lists objects below `tables` or `jobs`; those of one folder together.
    pub(super) fn listed(&self, kind: Kind, folder: &str) -> Result<Vec<Listed>, StageError> {
        let now = self.leases.now()?;
        let mut found: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for Named { key, bytes, modified, .. } in self.client.list(folder)? {
            let depth = if kind == Kind::Table { 3 } else { 4 };
            let name: Vec<&str> = key.split('/').take(depth).collect();
            let (sum, newest) = found.entry(name.join("/")).or_insert((0, modified));
            *sum += bytes;
            *newest = modified.max(*newest);
        }
        let attempts = self.several_attempts(&found)?;
        let damaged = self.damaged()?.clone().unwrap_or_default();
        let is_young = |modified: i64| {
            u128::try_from(now - modified).is_ok_and(|age| age < self.limits.young.as_millis())
        };
        let listed = found.into_iter().map(|(key, (bytes, modified))| {
            let what = what(kind, &key, &attempts);
            let damaged = matches!(&what, What::Content(address) if damaged.contains(address));
            let young = is_young(modified) || modified > now;
            Listed { name: key.into(), what, bytes, damaged, young }
        });
        Ok(listed.collect())
    }

    /// Of folders with more than one attempt: the attempt that their record names.
    fn several_attempts(
        &self,
        found: &BTreeMap<String, (u64, i64)>,
    ) -> Result<BTreeMap<Address, String>, StageError> {
        let mut counted: BTreeMap<Address, usize> = BTreeMap::new();
        for key in found.keys() {
            if let What::Content(address) = what(Kind::Folder, key, &BTreeMap::new()) {
                *counted.entry(address).or_default() += 1;
            }
        }
        let mut named = BTreeMap::new();
        for address in counted.into_iter().filter(|(_, n)| *n > 1).map(|(address, _)| address) {
            if let Some(attempt) = self.attempt(&address, true)? {
                named.insert(address, attempt);
            }
        }
        Ok(named)
    }
}
