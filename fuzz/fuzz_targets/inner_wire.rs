//! What another replica says is read or refused; a question that is read has a vector of finite numbers, and is read the same when it is passed on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::cluster::wire::{ShardAnswer, ShardQuery, Status};
use medsearch::domain::K_MAX;

mod driver;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(question) = serde_json::from_slice::<ShardQuery>(bytes)
        && let Ok((query, ask)) = question.read()
    {
        assert!(query.embedding.as_slice().iter().all(|x| x.is_finite()));
        assert!((1..=K_MAX).contains(&ask.k));
        let sent = serde_json::to_vec(&question).expect("what was read can be written");
        let again: ShardQuery = serde_json::from_slice(&sent).expect("what was written can be read");
        let (query_again, ask_again) = again.read().expect("the same is understood");
        let bits = |query: &[f32]| query.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(query_again.embedding.as_slice()) == bits(query.embedding.as_slice()));
        assert!(ask_again == ask);
    }
    if let Ok(answer) = serde_json::from_slice::<ShardAnswer>(bytes) {
        let found = answer.rankings.iter().flat_map(|ranking| &ranking.hits);
        found.for_each(|found| {
            std::hint::black_box(found.similarity());
        });
    }
    if let Ok(status) = serde_json::from_slice::<Status>(bytes) {
        status.is_understood();
    }
});
