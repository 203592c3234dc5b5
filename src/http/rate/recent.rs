//! A map of what was used lately, of bounded size.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used goes into the young one; when that is full, the old one is forgotten and the young one becomes it. So what is used
/// stays, and what was not used while so many others were is gone.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash, V: Default> Recent<K, V> {
    /// An empty one that holds up to twice so many.
    pub fn new(generation_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max,
        }
    }

    /// What there is of this key, or the default.
    pub fn get(&mut self, key: K) -> &mut V {
        let is_new = !self.young.contains_key(&key);
        if is_new && self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young
            .entry(key)
            .or_insert_with_key(|key| old.remove(key).unwrap_or_default())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_bound_and_forgets_only_what_was_not_used(keys in prop::collection::vec(0_u8..40, 0..500)) {
            let mut recent = Recent::<u8, usize>::new(8);
            let mut last_use: HashMap<u8, usize> = HashMap::new();
            for (at, key) in keys.iter().enumerate() {
                let known = std::mem::replace(recent.get(*key), at + 1);
                prop_assert!(recent.len() <= 16);
                let last = last_use.insert(*key, at);
                if known == 0 && let Some(last) = last {
                    let mut others: Vec<u8> = keys[last + 1..at].to_vec();
                    others.sort_unstable();
                    others.dedup();
                    prop_assert!(others.len() >= 8, "only {} others came in between", others.len());
                } else if known > 0 {
                    prop_assert_eq!(Some(known - 1), last);
                }
            }
        }
    }
}
