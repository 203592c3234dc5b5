//! Which images are one picture, and who stands for whom because of it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::{Copies, Group, ImageId, Key, OnePer, PatientKeys, Record, Union};

/// The pictures of a version that are there more than once.
#[derive(Debug, Default)]
pub struct Pictures {
    /// Of each image that is a copy: the copies with it, and its group.
    of_image: HashMap<ImageId, (Arc<Copies>, Group)>,
    /// Groups of patients that have a copy.
    of_patient: HashMap<Key, Group>,
    /// Who stands together in each group.
    joined: HashMap<Group, Joined>,
    /// Images whose label is in dispute only for what another copy says, ascending.
    disputed: Vec<ImageId>,
    count: usize,
}

/// The copies and the patients of one group.
#[derive(Debug, Default)]
pub struct Joined {
    /// Images that are copies.
    pub images: Vec<ImageId>,
    /// Patients with such an image, all of whose images are in the group.
    pub patients: Vec<PatientKeys>,
}

impl Pictures {
    /// Closes `records`, the living images that are linked, linked to or of equal pixels, each once, in any order. A link is only a name: copies of an
    /// image that is there no more are copies of each other.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Arc<Record>>) -> Self {
        let mut records: Vec<&Arc<Record>> = records.into_iter().collect();
        records.sort_by_key(|record| record.id);
        let mut pictures = Numbers::default();
        for record in &records {
            let own = pictures.number(Name::Image(record.id));
            let link = record.near_identical_to.map(Name::Image);
            for name in link.into_iter().chain(record.pixel_key.map(Name::Key)) {
                pictures.join(own, name);
            }
        }
        let mut members: BTreeMap<usize, Vec<&Arc<Record>>> = BTreeMap::new();
        for record in records {
            members
                .entry(pictures.set(Name::Image(record.id)))
                .or_default()
                .push(record);
        }
        members.retain(|_, members| members.len() > 1);

        // What one picture or one patient holds together.
        let mut groups = Numbers::default();
        for members in members.values() {
            let first = groups.number(Name::Image(members[0].id));
            for record in members {
                groups.join(first, Name::Image(record.id));
                if let Some(patient) = record.patient {
                    groups.join(first, Name::Key(patient));
                }
            }
        }
        let mut smallest: HashMap<usize, ImageId> = HashMap::new();
        for record in members.values().flatten() {
            let least = smallest.entry(groups.set(Name::Image(record.id))).or_insert(record.id);
            *least = record.id.min(*least);
        }
        let mut made = Self {
            count: members.len(),
            ..Self::default()
        };
        for members in members.into_values() {
            let classes: BTreeSet<_> = (members.iter())
                .flat_map(|record| record.class.iter().chain(record.alias_classes()))
                .collect();
            let copies = Arc::new(Copies {
                images: members.iter().map(|record| record.id).collect(),
                label_conflict: classes.len() > 1,
            });
            for record in members {
                let group = Group::Joined(smallest[&groups.set(Name::Image(record.id))]);
                made.of_image.insert(record.id, (Arc::clone(&copies), group));
                let joined = made.joined.entry(group).or_default();
                joined.images.push(record.id);
                if let Some(keys) = PatientKeys::of(record)
                    && made.of_patient.insert(keys.patient, group).is_none()
                {
                    joined.patients.push(keys);
                }
                if copies.label_conflict && record.votes() {
                    made.disputed.push(record.id);
                }
            }
        }
        made
    }

    /// The copies of an image's picture, itself among them, if there is another.
    pub fn copies(&self, id: ImageId) -> Option<&Arc<Copies>> {
        Some(&self.of_image.get(&id)?.0)
    }

    /// Who an image stands for.
    pub fn group(&self, record: &Record, one_per: OnePer) -> Group {
        match one_per {
            OnePer::Image => Group::Image(record.id),
            OnePer::Patient => Group::of(record),
            OnePer::Picture => {
                let by_patient = record
                    .patient
                    .and_then(|patient| self.of_patient.get(&patient))
                    .copied();
                let by_image = || Some(self.of_image.get(&record.id)?.1);
                by_patient.or_else(by_image).unwrap_or_else(|| Group::of(record))
            }
        }
    }

    /// Who stands together with an image because of copies, if anybody does.
    pub fn joined(&self, record: &Record) -> Option<(Group, &Joined)> {
        let group = self.group(record, OnePer::Picture);
        Some((group, self.joined.get(&group)?))
    }

    /// Images of one picture that carry different classes, though nothing in their own record says so.
    pub fn disputed(&self) -> &[ImageId] {
        &self.disputed
    }

    /// Pictures that are there more than once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Images that are a copy of another one.
    pub fn images(&self) -> usize {
        self.of_image.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Image(ImageId),
    Key(Key),
}

/// Sets of names.
struct Numbers {
    of: HashMap<Name, usize>,
    union: Union,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            union: Union::new(0),
        }
    }
}

impl Numbers {
    fn number(&mut self, name: Name) -> usize {
        let union = &mut self.union;
        *self.of.entry(name).or_insert_with(|| union.add())
    }

    fn join(&mut self, one: usize, name: Name) {
        let other = self.number(name);
        self.union.join(one, other);
    }

    fn set(&mut self, name: Name) -> usize {
        let number = self.number(name);
        self.union.find(number)
    }
}
