//! Sets that are joined pair by pair: patients, copies of a picture, and what is closed over both.

/// Numbered items, in sets that are closed over the pairs that were joined, whatever their order (Tarjan, "Efficiency of a good but not linear set union
/// algorithm", JACM 22(2), 1975).
#[derive(Debug, Clone)]
pub struct Union {
    parent: Vec<usize>,
}

impl Union {
    /// `count` sets of one.
    pub fn new(count: usize) -> Self {
        Self {
            parent: (0..count).collect(),
        }
    }

    /// One item more, a set of its own: its number.
    pub fn add(&mut self) -> usize {
        self.parent.push(self.parent.len());
        self.parent.len() - 1
    }

    /// The set that `item` is in, named by its smallest member.
    pub fn find(&mut self, item: usize) -> usize {
        let mut root = item;
        while self.parent[root] != root {
            root = self.parent[root];
        }
        let mut at = item;
        while self.parent[at] != root {
            at = std::mem::replace(&mut self.parent[at], root);
        }
        root
    }

    /// Makes one set of two.
    pub fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // The smallest member names the set, whatever the order of joins.
        self.parent[a.max(b)] = a.min(b);
    }

    /// The set of every item.
    pub fn sets(mut self) -> Vec<usize> {
        (0..self.parent.len()).map(|item| self.find(item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_are_transitive_and_free_of_order(
            count in 1usize..30, pairs in prop::collection::vec((0usize..30, 0usize..30), 0..40), turn in 0usize..40
        ) {
            let mut pairs: Vec<_> = pairs.into_iter().filter(|&(a, b)| a < count && b < count).collect();
            let sets = |pairs: &[(usize, usize)]| {
                let mut union = Union::new(count);
                pairs.iter().for_each(|&(a, b)| union.join(a, b));
                union.sets()
            };
            let of = sets(&pairs);
            // Whoever can be reached over pairs, by going on until nothing changes.
            for start in 0..count {
                let mut reached = vec![false; count];
                reached[start] = true;
                for _ in 0..count {
                    for &(a, b) in &pairs {
                        let either = reached[a] || reached[b];
                        (reached[a], reached[b]) = (either, either);
                    }
                }
                prop_assert_eq!(of[start], reached.iter().position(|&is| is).unwrap());
                prop_assert!((0..count).all(|item| (of[item] == of[start]) == reached[item]));
            }
            if !pairs.is_empty() {
                let turn = turn % pairs.len();
                pairs.rotate_left(turn);
            }
            pairs.iter_mut().for_each(|pair| *pair = (pair.1, pair.0));
            pairs.reverse();
            prop_assert_eq!(sets(&pairs), of);
        }
    }
}
