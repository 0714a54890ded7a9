#![no_main]
//! The body of a chat completion: a checked request, or an error that names what is wrong.

use libfuzzer_sys::fuzz_target;
use llavm_serve::Settings;
use llavm_serve::chat::request::{Part, parse};

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes, &Settings::default().defaults) {
        Ok(chat) => {
            assert!(chat.turns.last().expect("a turn").role.is_user());
            assert!(chat.options.max_tokens > 0 && chat.options.sampling.validate().is_ok());
            let shown = chat.turns.iter().filter(|turn| turn.parts.iter().any(|part| matches!(part, Part::Image(_))));
            assert!(shown.clone().all(|turn| turn.role.is_user()));
            assert_eq!(chat.check_images(usize::MAX), Ok(()));
        }
        Err(error) => assert!(error.status == 400 && !error.message.is_empty() && error.body().is_object()),
    }
});
