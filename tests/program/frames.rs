//! An HTTP/2 client on raw frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::process::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Client(TcpStream);

/// The frames that the server sent on one stream.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Frames of headers and of data, in this order.
    pub(crate) frames: Vec<(u8, Vec<u8>)>,
    /// The error codes of resets, of any stream.
    pub(crate) resets: Vec<(u32, u32)>,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut this = Self(stream);
        this.write(SETTINGS, 0, 0, &[]);
        this
    }

    /// A POST without its body.
    pub(crate) fn head(&mut self, stream: u32, path: &str, headers: &[(&str, &str)]) {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")];
        let mut block = Vec::new();
        for (name, value) in pseudo.iter().chain(headers) {
            // A literal without indexing, with a new name.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.write(HEADERS, END_HEADERS, stream, &block);
    }

    pub(crate) fn body(&mut self, stream: u32, data: &[u8], is_last: bool) {
        self.write(DATA, if is_last { END_STREAM } else { 0 }, stream, data);
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.write_all(&frame).unwrap();
    }

    /// Reads until the server has ended this stream.
    pub(crate) fn response(&mut self, stream: u32) -> Sent {
        let mut sent = Sent::default();
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap_or_else(|error| panic!("{error} after {sent:?}"));
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]),
                RST_STREAM => {
                    let code = u32::from_be_bytes(payload[..4].try_into().unwrap());
                    sent.resets.push((of, code));
                    assert_ne!(of, stream, "reset before its end: {sent:?}");
                }
                HEADERS | DATA if of == stream => {
                    sent.frames.push((kind, payload));
                    if flags & END_STREAM != 0 {
                        return sent;
                    }
                }
                _ => {}
            }
        }
    }
}

impl Sent {
    pub(crate) fn body(&self) -> String {
        let data = self.frames.iter().filter(|(kind, _)| *kind == DATA);
        String::from_utf8(data.flat_map(|(_, payload)| payload.clone()).collect()).unwrap()
    }
}
