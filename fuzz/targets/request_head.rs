//! What is judged is what is forwarded: a head that passes is read from its forwarded form as the same request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_l7proxy::http1::{Limits, Parsed, RequestHead, parse_request, write_request};

fn read(bytes: &[u8]) -> Option<RequestHead<'_>> {
    match parse_request(bytes, Limits::default()) {
        Ok(Parsed::Request(head)) => Some(head),
        Ok(_) | Err(_) => None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(head) = read(bytes) else { return };
    assert!(head.length <= bytes.len());
    for shorter in 0..head.length {
        let part = parse_request(&bytes[..shorter], Limits::default());
        assert!(matches!(part, Ok(Parsed::Partial)), "{part:?} of {shorter} bytes");
    }
    let mut forwarded = Vec::new();
    if write_request(&head, &[], &mut forwarded).is_err() {
        return;
    }
    let again = read(&forwarded).expect("what is forwarded is a request");
    assert_eq!(again.length, forwarded.len());
    let names =
        |head: &RequestHead<'_>| [head.method, head.target.as_path(), head.authority].map(str::to_owned);
    assert_eq!(names(&again), names(&head));
    assert_eq!((again.body, again.minor), (head.body, head.minor));
    // And what is forwarded is a fixed point.
    let mut third = Vec::new();
    write_request(&again, &[], &mut third).expect("as before");
    assert_eq!(third, forwarded);
});
