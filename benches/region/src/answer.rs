//! A program that answers, within instances and beside them: each line that it is sent by as many KiB as the line says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::Failure;

const KIBIBYTE: usize = 1 << 10;
/// More is answered to nobody.
const MOST_KIBIBYTES: usize = 1 << 10;

/// Answers for ever, a thread for each connection.
pub fn serve(address: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let stream = stream?;
        // One that goes away ends its own thread alone.
        thread::spawn(move || drop(answer(&stream)));
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let (mut lines, bytes) = (BufReader::new(stream.try_clone()?), vec![b'x'; MOST_KIBIBYTES * KIBIBYTE]);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let kibibytes: usize = line.trim().parse()?;
        stream.write_all(bytes.get(..kibibytes * KIBIBYTE).ok_or("too much is asked for")?)?;
        line.clear();
    }
    Ok(())
}

/// A connection to one that answers.
pub struct Caller {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Caller {
    pub fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self { stream, bytes: vec![0; MOST_KIBIBYTES * KIBIBYTE] })
    }

    pub fn ask(&mut self, kibibytes: usize) -> Result<(), Failure> {
        self.stream.write_all(format!("{kibibytes}\n").as_bytes())?;
        self.stream.read_exact(&mut self.bytes[..kibibytes * KIBIBYTE])?;
        Ok(())
    }
}

/// Answers a second for so many callers that ask without pause.
pub fn drive(address: SocketAddr, callers: usize, kibibytes: usize, during: Duration) -> Result<f64, Failure> {
    let begun = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            thread::spawn(move || -> Result<usize, Failure> {
                let (mut caller, mut count) = (Caller::connect(address)?, 0);
                while begun.elapsed() < during {
                    caller.ask(kibibytes)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut answers = 0;
    for caller in callers {
        answers += caller.join().map_err(|_| "a caller panicked")??;
    }
    Ok(answers as f64 / begun.elapsed().as_secs_f64())
}
