//! Bytes on their way to the CSV reader, watched: where each record begins, and whether its quotes are
//! what they seem. The reader is lenient, and would swallow rows in silence.

use crate::error::Error;
use crate::input::{LONGEST, too_long};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where the watcher stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    RecordStart,
    FieldStart,
    Plain,
    Quoted,
    /// After the escape inside quotes.
    Escaped,
    /// After a quote inside quotes: the end, or half of a quote.
    Closed,
}

/// A reader of records.
pub(crate) struct Records<R> {
    inner: R,
    path: PathBuf,
    delimiter: u8,
    /// Whether fields are quoted, and what escapes a quote.
    quote: Option<Option<u8>>,
    at: At,
    line: u64,
    /// The last byte ended a line alone, as a carriage return.
    after_return: bool,
    /// The line where the open quote is.
    opened: u64,
    /// Lines of records that were read ahead.
    starts: VecDeque<u64>,
    /// Without quoting: line ends are CRLF, found out from the first.
    crlf: Option<bool>,
    records: u64,
    /// Bytes of the line or record that is not over yet.
    open: usize,
}

impl<R: Read> Records<R> {
    pub fn new(inner: R, path: &Path, delimiter: u8, quote: Option<Option<u8>>) -> Self {
        let (at, starts, path) = (At::RecordStart, VecDeque::new(), path.into());
        let (line, opened, records, open) = (1, 0, 0, 0);
        let (after_return, crlf) = (false, None);
        Self {
            inner,
            path,
            delimiter,
            quote,
            at,
            line,
            after_return,
            opened,
            starts,
            crlf,
            records,
            open,
        }
    }

    /// The physical line where a record begins; asked once for each, in order.
    pub fn line(&mut self, record: &csv::ByteRecord) -> u64 {
        self.records += 1;
        match self.quote {
            Some(_) => self.starts.pop_front().unwrap_or(self.line),
            None => {
                // The reader counts the second half of the line end before with the record.
                let late = self.crlf == Some(true) && self.records > 1;
                record.position().map_or(0, csv::Position::line) + u64::from(late)
            }
        }
    }

    fn watch(&mut self, bytes: &[u8], escape: Option<u8>) -> Result<(), Error> {
        let mut begun = None;
        for (i, &byte) in bytes.iter().enumerate() {
            let ends_line = byte == b'\n' || byte == b'\r';
            self.at = match self.at {
                At::Quoted if Some(byte) == escape => At::Escaped,
                At::Quoted if byte == b'"' => At::Closed,
                At::Quoted | At::Escaped => At::Quoted,
                At::Closed if byte == b'"' && escape.is_none() => At::Quoted,
                At::Closed if byte != self.delimiter && !ends_line => {
                    return Err(Error::line(
                        &self.path,
                        self.opened,
                        "a quoted field goes on after its closing quote: if quotes are plain text here, say quote = \"none\" in columns; if a backslash escapes them, escape = \"\\\\\"",
                    ));
                }
                At::RecordStart if ends_line => At::RecordStart,
                at => {
                    if at == At::RecordStart {
                        self.starts.push_back(self.line);
                        begun = Some(i);
                    }
                    match byte {
                        b'"' if matches!(at, At::RecordStart | At::FieldStart) => {
                            self.opened = self.line;
                            At::Quoted
                        }
                        _ if byte == self.delimiter => At::FieldStart,
                        _ if ends_line => At::RecordStart,
                        _ => At::Plain,
                    }
                }
            };
            self.line += u64::from(byte == b'\r' || byte == b'\n' && !self.after_return);
            self.after_return = byte == b'\r';
        }
        self.open = begun.map_or(self.open + bytes.len(), |begun| bytes.len() - begun);
        match self.at {
            At::Quoted if self.open > LONGEST => Err(self.never_ends()),
            At::RecordStart => Ok(()),
            _ if self.open > LONGEST => Err(too_long(&self.path, self.line)),
            _ => Ok(()),
        }
    }

    fn never_ends(&self) -> Error {
        let what = "a quoted field begins here and never ends: if quotes are plain text, say quote = \"none\" in columns";
        Error::line(&self.path, self.opened, what)
    }
}

impl<R: Read> Read for Records<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.quote {
            Some(escape) => {
                self.watch(&buffer[..n], escape).map_err(io::Error::other)?;
                if n == 0 && matches!(self.at, At::Quoted | At::Escaped) {
                    return Err(io::Error::other(self.never_ends()));
                }
            }
            None => {
                let end = buffer[..n].iter().rposition(|&byte| byte == b'\n');
                self.open = end.map_or(self.open + n, |end| n - end);
                if self.open > LONGEST {
                    return Err(io::Error::other(too_long(&self.path, self.records + 1)));
                }
                if self.crlf.is_none() {
                    let end = buffer[..n].iter().position(|&byte| byte == b'\n');
                    self.crlf = end.map(|end| end > 0 && buffer[end - 1] == b'\r');
                }
            }
        }
        Ok(n)
    }
}
