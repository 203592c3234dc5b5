//! A card that is accepted is of the space that its fields make, and is accepted again as it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medsearch::embed::ModelCard;

mod driver;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(card) = ModelCard::from_json(bytes) {
        assert_eq!(card.space().id(), card.space_id);
        assert!(card.input().width > 0 && card.input().height > 0);
        let written = serde_json::to_vec(&card).expect("a card can be written");
        ModelCard::from_json(&written).expect("what was written can be read");
    }
});
