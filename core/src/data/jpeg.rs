//! Whether a JPEG holds all of its pixels: its coded data are walked through, and no pixel is decoded.
//!
//! Decoders fill up pixels that are missing, and say nothing. Walking takes about half as long as decoding.
//!
//! Source: ITU-T T.81 (1992), annexes B (markers), F (sequential) and G (progressive).

/// The most scans of a progressive picture. The decoder has the same limit; usual are ten.
const MAX_SCANS: usize = 100;

/// Why a JPEG is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The data end before the last pixel.
    EndsEarly,
    /// There is a code that is in none of the tables.
    Broken,
}

/// Checks that every pixel that the header announces is there. The mark of the end need not be: data that are
/// complete are. Forms that are not known here (arithmetic coding, for instance) are left to the decoder.
///
/// # Errors
/// Why it is not whole.
pub fn check(bytes: &[u8]) -> Result<(), Fault> {
    let mut walk = Walk { bytes, at: 2, ..Walk::default() };
    for _ in 0..MAX_SCANS {
        match walk.advance_to_scan()? {
            Some(scan) => walk.scan(&scan)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Walk<'a> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// Huffman tables: of DC coefficients, then of AC coefficients.
    tables: [[Table; 4]; 2],
    /// MCUs between two restart marks; 0 where there are none.
    restart: usize,
    frame: Option<Frame>,
}

struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// The largest sampling factors.
    most: (usize, usize),
    components: Vec<Component>,
}

struct Component {
    id: u8,
    sampling: (usize, usize),
    /// For each coefficient the lowest bit that has come; `u8::MAX` where none has.
    lowest: [u8; 64],
    /// In a progressive picture, the coefficients of each block that are not 0.
    nonzero: Vec<u64>,
}

/// A scan's header.
struct Scan {
    /// Index of the component, its DC table and its AC table.
    components: Vec<(usize, usize, usize)>,
    /// First and last coefficient.
    band: (usize, usize),
    /// Whether bits are added to what came before.
    refines: bool,
    /// The lowest bit.
    low: u8,
}

impl Frame {
    fn read(marker: u8, segment: &[u8]) -> Option<Self> {
        let [_, h1, h0, w1, w0, count, rest @ ..] = segment else { return None };
        let components = rest.chunks_exact(3).take(usize::from(*count)).map(|entry| Component {
            id: entry[0],
            sampling: (usize::from(entry[1] >> 4), usize::from(entry[1] & 15)),
            lowest: [u8::MAX; 64],
            nonzero: Vec::new(),
        });
        let components: Vec<_> = components.collect();
        let (horizontal, vertical): (Vec<_>, Vec<_>) =
            components.iter().map(|component| component.sampling).unzip();
        let frame = Self {
            progressive: marker == 0xc2,
            width: usize::from(u16::from_be_bytes([*w1, *w0])),
            height: usize::from(u16::from_be_bytes([*h1, *h0])),
            most: (horizontal.iter().copied().max()?, vertical.iter().copied().max()?),
            components,
        };
        let known = |factor: &usize| (1..=4).contains(factor);
        let good = horizontal.iter().chain(&vertical).all(known)
            && frame.components.len() == usize::from(*count)
            && frame.width > 0
            && frame.height > 0;
        good.then_some(frame)
    }

    /// Whether all bits of all coefficients have come.
    fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.lowest.iter().all(|low| *low == 0))
    }
}

impl Scan {
    fn read(segment: &[u8], frame: &Frame) -> Option<Self> {
        let (count, rest) = segment.split_first()?;
        let (entries, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let [first, last, bits, ..] = *rest else { return None };
        let components = entries.chunks_exact(2).map(|entry| {
            let index = frame.components.iter().position(|component| component.id == entry[0])?;
            let (dc, ac) = (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
            (dc < 4 && ac < 4).then_some((index, dc, ac))
        });
        let components = components.collect::<Option<Vec<_>>>()?;
        let (band, refines, low) = match frame.progressive {
            true => ((usize::from(first), usize::from(last)), bits >> 4 != 0, bits & 15),
            false => ((0, 63), false, 0),
        };
        let alone = components.len() == 1;
        let good = match (frame.progressive, band) {
            (false, _) | (true, (0, 0)) => !components.is_empty(),
            (true, (first, last)) => alone && first > 0 && first <= last && last < 64,
        };
        good.then_some(Self { components, band, refines, low })
    }
}

impl Walk<'_> {
    /// Reads up to the data of the next scan. None at the end of a picture that is whole, and where the form is not
    /// known.
    fn advance_to_scan(&mut self) -> Result<Option<Scan>, Fault> {
        loop {
            // In place of the mark of the end, complete data will do.
            let complete = self.frame.as_ref().is_some_and(Frame::is_complete);
            let Some(marker) = self.next_marker() else {
                return if complete { Ok(None) } else { Err(Fault::EndsEarly) };
            };
            match marker {
                _ if complete => return Ok(None),
                0xd9 => {
                    let begun = |component: &Component| component.lowest[0] != u8::MAX;
                    let frame = self.frame.as_ref();
                    let all = frame.is_some_and(|frame| frame.components.iter().all(begun));
                    return if all { Ok(None) } else { Err(Fault::EndsEarly) };
                }
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let segment = self.segment().ok_or(Fault::EndsEarly)?;
            match marker {
                0xc4 if self.read_tables(segment).is_some() => {}
                0xc0..=0xc2 if self.frame.is_none() => match Frame::read(marker, segment) {
                    None => return Ok(None),
                    frame => self.frame = frame,
                },
                0xc0..=0xcf => return Ok(None),
                0xdd => {
                    let interval = segment.first_chunk().map_or(0, |two| u16::from_be_bytes(*two));
                    self.restart = usize::from(interval);
                }
                0xda => return Ok(self.frame.as_ref().and_then(|f| Scan::read(segment, f))),
                _ => {}
            }
        }
    }

    /// Goes behind the next marker.
    fn next_marker(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.at..)?;
        let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0 | 0xff);
        let marker = rest.windows(2).position(is_marker)?;
        self.at += marker + 2;
        Some(rest[marker + 1])
    }

    /// Goes behind a segment, whose length comes first.
    fn segment<'b>(&mut self) -> Option<&'b [u8]>
    where
        Self: 'b,
    {
        let rest = self.bytes.get(self.at..)?;
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let segment = rest.get(2..length)?;
        self.at += length;
        Some(segment)
    }

    fn read_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [place, rest @ ..] = segment {
            let (counts, values) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = values.split_at_checked(total)?;
            let tables = self.tables.get_mut(usize::from(place >> 4))?;
            *tables.get_mut(usize::from(place & 15))? = Table::new(counts, values)?;
            segment = rest;
        }
        Some(())
    }

    /// Walks through the data of a scan.
    fn scan(&mut self, scan: &Scan) -> Result<(), Fault> {
        let frame = self.frame.as_mut().expect("a scan has a frame");
        let mut bits = Bits { bytes: self.bytes, at: self.at, buffer: 0, count: 0 };
        let size = (frame.width, frame.height);
        let (most_h, most_v) = frame.most;
        // A component alone has blocks only as far as the picture goes; together they fill whole MCUs.
        let (mcus, blocks): (usize, Vec<_>) = match scan.components[..] {
            [(index, dc, ac)] => {
                let (h, v) = frame.components[index].sampling;
                let columns = (size.0 * h).div_ceil(most_h).div_ceil(8);
                let rows = (size.1 * v).div_ceil(most_v).div_ceil(8);
                (columns * rows, vec![(index, dc, ac)])
            }
            _ => {
                let columns = size.0.div_ceil(8 * most_h);
                let rows = size.1.div_ceil(8 * most_v);
                let blocks = scan.components.iter().flat_map(|component| {
                    let (h, v) = frame.components[component.0].sampling;
                    std::iter::repeat_n(*component, h * v)
                });
                (columns * rows, blocks.collect())
            }
        };
        let (first, last) = scan.band;
        if frame.progressive && first > 0 {
            frame.components[scan.components[0].0].nonzero.resize(mcus, 0);
        }
        // Blocks to come that hold nothing new.
        let mut empty = 0;
        for mcu in 0..mcus {
            if self.restart > 0 && mcu > 0 && mcu % self.restart == 0 {
                bits.restart()?;
                empty = 0;
            }
            for (index, dc, ac) in &blocks {
                let (dc, ac) = (&self.tables[0][*dc], &self.tables[1][*ac]);
                match (first, scan.refines) {
                    (0, true) => bits.skip(1)?,
                    (0, false) => {
                        bits.value(dc)?;
                        if last > 0 {
                            bits.coefficients(ac)?;
                        }
                    }
                    (_, refines) => {
                        let nonzero = &mut frame.components[*index].nonzero[mcu];
                        match refines {
                            false => bits.first(ac, scan.band, nonzero, &mut empty)?,
                            true => bits.refined(ac, scan.band, nonzero, &mut empty)?,
                        }
                    }
                }
            }
        }
        for (index, ..) in &scan.components {
            frame.components[*index].lowest[first..=last].fill(scan.low);
        }
        self.at = bits.at;
        Ok(())
    }
}

/// A Huffman table.
#[derive(Default)]
struct Table {
    /// For each length of codes, from 1: the end of these codes and all shorter ones, as the first of 16 bits.
    ends: [u32; 16],
    /// Added to a code of this length, it gives the value's index.
    offsets: [isize; 16],
    values: Vec<u8>,
}

impl Table {
    /// None where there are more codes than fit.
    fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table = Self { values: values.to_vec(), ..Self::default() };
        let (mut code, mut index) = (0u32, 0);
        for (length, count) in counts.iter().enumerate() {
            table.offsets[length] = index - code as isize;
            code += u32::from(*count);
            index += isize::from(*count);
            table.ends[length] = code << (15 - length);
            if table.ends[length] > 1 << 16 {
                return None;
            }
            code <<= 1;
        }
        Some(table)
    }
}

/// The bits of coded data, up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// The next bits, from the highest on; 0 behind them.
    buffer: u64,
    /// Bits in the buffer.
    count: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 56 {
            let (byte, length) = match self.bytes.get(self.at..) {
                Some([0xff, 0, ..]) => (0xff, 2),
                Some([0xff, 0xff, ..]) => {
                    self.at += 1;
                    continue;
                }
                Some([0xff, ..] | []) | None => return,
                Some([byte, ..]) => (*byte, 1),
            };
            self.at += length;
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, mut count: u32) -> Result<(), Fault> {
        while count > 0 {
            let part = count.min(16);
            self.take(part)?;
            count -= part;
        }
        Ok(())
    }

    /// The next bits, 16 at most.
    fn take(&mut self, count: u32) -> Result<u32, Fault> {
        if self.count < count {
            self.fill();
        }
        self.count = self.count.checked_sub(count).ok_or(Fault::EndsEarly)?;
        let value = if count == 0 { 0 } else { self.buffer >> (64 - count) };
        self.buffer <<= count;
        Ok(value as u32)
    }

    fn code(&mut self, table: &Table) -> Result<u8, Fault> {
        if self.count < 16 {
            self.fill();
        }
        let next = (self.buffer >> 48) as u32;
        let Some(length) = table.ends.iter().position(|end| next < *end) else {
            return Err(if self.count < 16 { Fault::EndsEarly } else { Fault::Broken });
        };
        let code = self.take(length as u32 + 1)?;
        let index = table.offsets[length] + code as isize;
        Ok(table.values[index as usize])
    }

    /// A DC coefficient.
    fn value(&mut self, table: &Table) -> Result<(), Fault> {
        match self.code(table)? {
            size @ 0..=16 => self.skip(size.into()),
            _ => Err(Fault::Broken),
        }
    }

    /// The AC coefficients of a block of a sequential picture.
    fn coefficients(&mut self, table: &Table) -> Result<(), Fault> {
        let mut k = 1;
        while k < 64 {
            match self.code(table)? {
                0xf0 => k += 16,
                code if code & 15 == 0 => break,
                code => {
                    k += code >> 4;
                    k += 1;
                    self.skip((code & 15).into())?;
                }
            }
        }
        Ok(())
    }

    /// The first bits of a band of AC coefficients in a block.
    fn first(
        &mut self,
        table: &Table,
        (first, last): (usize, usize),
        nonzero: &mut u64,
        empty: &mut u32,
    ) -> Result<(), Fault> {
        if *empty > 0 {
            *empty -= 1;
            return Ok(());
        }
        let mut k = first;
        while k <= last {
            let code = self.code(table)?;
            let (run, size) = (u32::from(code >> 4), u32::from(code & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (run, 0) => {
                    *empty = (1 << run) - 1 + self.take(run)?;
                    break;
                }
                _ => {
                    k += run as usize;
                    self.skip(size)?;
                    *nonzero |= 1u64.checked_shl(k as u32).unwrap_or(0);
                    k += 1;
                }
            }
        }
        Ok(())
    }

    /// A further bit of a band of AC coefficients in a block: one for each that is not 0, and those that become so.
    fn refined(
        &mut self,
        table: &Table,
        (first, last): (usize, usize),
        nonzero: &mut u64,
        empty: &mut u32,
    ) -> Result<(), Fault> {
        let mut k = first;
        if *empty == 0 {
            while k <= last {
                let code = self.code(table)?;
                let (mut run, size) = (u32::from(code >> 4), code & 15);
                if size == 0 && run < 15 {
                    *empty = (1 << run) + self.take(run)?;
                    break;
                }
                self.skip(u32::from(size != 0))?;
                while k <= last {
                    if *nonzero >> k & 1 != 0 {
                        self.skip(1)?;
                    } else if run > 0 {
                        run -= 1;
                    } else {
                        break;
                    }
                    k += 1;
                }
                if size != 0 && k <= last {
                    *nonzero |= 1 << k;
                }
                k += 1;
            }
        }
        if *empty > 0 {
            *empty -= 1;
            let band = (u64::MAX >> (63 - last)) & u64::MAX.checked_shl(k as u32).unwrap_or(0);
            self.skip((*nonzero & band).count_ones())?;
        }
        Ok(())
    }

    /// Goes behind a restart mark.
    fn restart(&mut self) -> Result<(), Fault> {
        (self.buffer, self.count) = (0, 0);
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0 | 0xff);
        match rest.windows(2).position(is_marker) {
            Some(marker) if matches!(rest[marker + 1], 0xd0..=0xd7) => {
                self.at += marker + 2;
                Ok(())
            }
            _ => Err(Fault::EndsEarly),
        }
    }
}
