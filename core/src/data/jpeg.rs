//! Checks whether a JPEG holds all of its pixels, by parsing its coded data without decoding
//! pixels.
//!
//! Decoders fill in missing pixels without an error. Parsing takes about half as long as decoding.
//!
//! Source: ITU-T T.81 (1992), annexes B (markers), F (sequential) and G (progressive).

/// The largest number of scans of a progressive picture. The decoder has the same limit; usual
/// pictures have ten.
const MAX_SCANS: usize = 100;

/// The reason why a JPEG is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The data end before the last pixel.
    EndsEarly,
    /// The data contain a code that is in none of the tables.
    Broken,
}

/// Checks that every pixel that the header announces is there. Complete data may lack the end
/// marker. Unsupported forms, such as arithmetic coding, are left to the decoder.
///
/// # Errors
/// If pixels are missing; the error states the reason.
pub fn check(bytes: &[u8]) -> Result<(), Fault> {
    let mut parser = Parser { bytes, at: 2, ..Parser::default() };
    for _ in 0..MAX_SCANS {
        match parser.advance_to_scan()? {
            Some(scan) => parser.scan(&scan)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Parser<'a> {
    bytes: &'a [u8],
    /// The index of the next byte.
    at: usize,
    /// The Huffman tables of DC coefficients, then those of AC coefficients.
    tables: [[HuffmanTable; 4]; 2],
    /// The number of minimum coded units (MCUs) between two restart markers; 0 if there are none.
    restart: usize,
    frame: Option<Frame>,
}

struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// The largest horizontal and vertical sampling factors of all components.
    max_sampling: (usize, usize),
    components: Vec<FrameComponent>,
}

struct FrameComponent {
    id: u8,
    sampling: (usize, usize),
    /// For each coefficient, the lowest bit that has arrived; `u8::MAX` if none has.
    lowest: [u8; 64],
    /// The coefficients of each block that are not 0, as a bit mask; only for progressive pictures.
    nonzero: Vec<u64>,
}

/// The header of a scan.
struct ScanHeader {
    /// The indices of each component, its DC table and its AC table.
    components: Vec<(usize, usize, usize)>,
    /// The first and the last coefficient.
    band: (usize, usize),
    /// Whether the scan adds bits to coefficients of earlier scans.
    refines: bool,
    /// The lowest bit that the scan holds.
    low: u8,
}

impl Frame {
    fn read(marker: u8, segment: &[u8]) -> Option<Self> {
        let [_, h1, h0, w1, w0, count, rest @ ..] = segment else { return None };
        let components =
            rest.chunks_exact(3).take(usize::from(*count)).map(|entry| FrameComponent {
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
            max_sampling: (horizontal.iter().copied().max()?, vertical.iter().copied().max()?),
            components,
        };
        let known = |factor: &usize| (1..=4).contains(factor);
        let good = horizontal.iter().chain(&vertical).all(known)
            && frame.components.len() == usize::from(*count)
            && frame.width > 0
            && frame.height > 0;
        good.then_some(frame)
    }

    /// Whether all bits of all coefficients have arrived.
    fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.lowest.iter().all(|low| *low == 0))
    }
}

impl ScanHeader {
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

impl Parser<'_> {
    /// Parses up to the data of the next scan. Returns `None` at the end of a complete picture, and
    /// for unsupported forms.
    fn advance_to_scan(&mut self) -> Result<Option<ScanHeader>, Fault> {
        loop {
            // Complete data are accepted without an end marker.
            let complete = self.frame.as_ref().is_some_and(Frame::is_complete);
            let Some(marker) = self.next_marker() else {
                return if complete { Ok(None) } else { Err(Fault::EndsEarly) };
            };
            match marker {
                _ if complete => return Ok(None),
                0xd9 => {
                    let has_begun = |component: &FrameComponent| component.lowest[0] != u8::MAX;
                    let frame = self.frame.as_ref();
                    let all = frame.is_some_and(|frame| frame.components.iter().all(has_begun));
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
                0xda => return Ok(self.frame.as_ref().and_then(|f| ScanHeader::read(segment, f))),
                _ => {}
            }
        }
    }

    /// Skips to the end of the next marker and returns it.
    fn next_marker(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.at..)?;
        let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0 | 0xff);
        let marker = rest.windows(2).position(is_marker)?;
        self.at += marker + 2;
        Some(rest[marker + 1])
    }

    /// Skips a segment and returns it without its length, which comes first.
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
        while let [class_and_index, rest @ ..] = segment {
            let (counts, values) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = values.split_at_checked(total)?;
            let tables = self.tables.get_mut(usize::from(class_and_index >> 4))?;
            *tables.get_mut(usize::from(class_and_index & 15))? =
                HuffmanTable::new(counts, values)?;
            segment = rest;
        }
        Some(())
    }

    /// Parses the data of a scan.
    fn scan(&mut self, scan: &ScanHeader) -> Result<(), Fault> {
        let frame = self.frame.as_mut().expect("a scan has a frame");
        let mut bits = BitReader { bytes: self.bytes, at: self.at, buffer: 0, count: 0 };
        let size = (frame.width, frame.height);
        let (max_h, max_v) = frame.max_sampling;
        // In a scan of one component, the blocks only cover the picture. In a scan of several, they
        // fill whole MCUs.
        let (mcus, blocks): (usize, Vec<_>) = match scan.components[..] {
            [(index, dc, ac)] => {
                let (h, v) = frame.components[index].sampling;
                let columns = (size.0 * h).div_ceil(max_h).div_ceil(8);
                let rows = (size.1 * v).div_ceil(max_v).div_ceil(8);
                (columns * rows, vec![(index, dc, ac)])
            }
            _ => {
                let columns = size.0.div_ceil(8 * max_h);
                let rows = size.1.div_ceil(8 * max_v);
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
        // The number of following blocks without new bits.
        let mut empty_blocks = 0;
        for mcu in 0..mcus {
            if self.restart > 0 && mcu > 0 && mcu % self.restart == 0 {
                bits.restart()?;
                empty_blocks = 0;
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
                            false => bits.first(ac, scan.band, nonzero, &mut empty_blocks)?,
                            true => bits.refined(ac, scan.band, nonzero, &mut empty_blocks)?,
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
struct HuffmanTable {
    /// For each length of codes, from 1 on: the end of all codes up to this length, as 16 bits that
    /// are filled up with zeros.
    ends: [u32; 16],
    /// The number that gives the index of the value when it is added to a code of this length.
    offsets: [isize; 16],
    values: Vec<u8>,
    /// For each value of the next 8 bits, the number of lengths in `ends` that are too short.
    shorter: Vec<usize>,
}

impl HuffmanTable {
    /// Builds a table; `None` if there are more codes than fit.
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
        let shorter = |bits: u32| table.ends.iter().take_while(|end| bits << 8 >= **end).count();
        table.shorter = (0..256).map(shorter).collect();
        Some(table)
    }
}

/// Reads the bits of coded data up to the next marker.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// The index of the next byte that is not in the buffer.
    at: usize,
    /// The next bits, from the highest on; the bits after them are 0.
    buffer: u64,
    /// The number of bits in the buffer.
    count: u32,
}

impl BitReader<'_> {
    fn fill(&mut self) {
        // Mostly, the next four bytes are plain data.
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if let Some(four) = rest.first_chunk::<4>().filter(|four| !four.contains(&0xff))
            && self.count <= 32
        {
            self.buffer |= u64::from(u32::from_be_bytes(*four)) << (32 - self.count);
            (self.at, self.count) = (self.at + 4, self.count + 32);
            return;
        }
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

    /// Reads the next bits, 16 at most.
    fn take(&mut self, count: u32) -> Result<u32, Fault> {
        if self.count < count {
            self.fill();
        }
        self.count = self.count.checked_sub(count).ok_or(Fault::EndsEarly)?;
        let value = if count == 0 { 0 } else { self.buffer >> (64 - count) };
        self.buffer <<= count;
        Ok(value as u32)
    }

    fn code(&mut self, table: &HuffmanTable) -> Result<u8, Fault> {
        if self.count < 16 {
            self.fill();
        }
        let next = (self.buffer >> 48) as u32;
        // A table that the file does not define has no codes.
        let mut length = table.shorter.get(next as usize >> 8).copied().unwrap_or(16);
        while table.ends.get(length).is_some_and(|end| next >= *end) {
            length += 1;
        }
        if length == table.ends.len() {
            return Err(if self.count < 16 { Fault::EndsEarly } else { Fault::Broken });
        }
        let code = self.take(length as u32 + 1)?;
        let index = table.offsets[length] + code as isize;
        Ok(table.values[index as usize])
    }

    /// Parses a DC coefficient.
    fn value(&mut self, table: &HuffmanTable) -> Result<(), Fault> {
        match self.code(table)? {
            size @ 0..=16 => self.skip(size.into()),
            _ => Err(Fault::Broken),
        }
    }

    /// Parses the AC coefficients of a block of a sequential picture.
    fn coefficients(&mut self, table: &HuffmanTable) -> Result<(), Fault> {
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

    /// Parses the first bits of a band of AC coefficients in a block.
    fn first(
        &mut self,
        table: &HuffmanTable,
        (first, last): (usize, usize),
        nonzero: &mut u64,
        empty_blocks: &mut u32,
    ) -> Result<(), Fault> {
        if *empty_blocks > 0 {
            *empty_blocks -= 1;
            return Ok(());
        }
        let mut k = first;
        while k <= last {
            let code = self.code(table)?;
            let (run, size) = (u32::from(code >> 4), u32::from(code & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (run, 0) => {
                    *empty_blocks = (1 << run) - 1 + self.take(run)?;
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

    /// Parses a further bit of a band of AC coefficients in a block: one bit for each coefficient
    /// that is not 0, and the coefficients that this scan makes nonzero.
    fn refined(
        &mut self,
        table: &HuffmanTable,
        (first, last): (usize, usize),
        nonzero: &mut u64,
        empty_blocks: &mut u32,
    ) -> Result<(), Fault> {
        let mut k = first;
        if *empty_blocks == 0 {
            while k <= last {
                let code = self.code(table)?;
                let (mut run, size) = (u32::from(code >> 4), code & 15);
                if size == 0 && run < 15 {
                    *empty_blocks = (1 << run) + self.take(run)?;
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
        if *empty_blocks > 0 {
            *empty_blocks -= 1;
            let band = (u64::MAX >> (63 - last)) & u64::MAX.checked_shl(k as u32).unwrap_or(0);
            self.skip((*nonzero & band).count_ones())?;
        }
        Ok(())
    }

    /// Skips a restart marker.
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
