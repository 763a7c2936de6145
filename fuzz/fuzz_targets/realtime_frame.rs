//! Whatever bytes a Realtime peer sends, the decoder returns; and what it accepts survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline::access::realtime::frame::{ClientBinary, Envelope, ServerBinary};
use throughline::access::realtime::message::{Incoming, Wire};
use throughline::access::realtime::{RefusalCode, RejectionCause, Vsn};

fuzz_target!(|bytes: &[u8]| {
    let _ = Incoming::decode(Vsn::V2, Wire::Binary(bytes));
    if let Ok(frame) = ServerBinary::decode(bytes) {
        assert_eq!(frame.encode().as_deref(), Ok(bytes));
    }
    if let Ok(frame) = ClientBinary::decode(bytes) {
        assert_eq!(frame.encode().as_deref(), Ok(bytes));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for vsn in [Vsn::V1, Vsn::V2] {
        let _ = Incoming::decode(vsn, Wire::Text(text));
        if let Ok(envelope) = Envelope::decode(vsn, text) {
            assert_eq!(Envelope::decode(vsn, &envelope.encode(vsn)), Ok(envelope));
        }
    }
    let _ = RejectionCause::parse(text);
    let _ = RefusalCode::parse(text);
});
