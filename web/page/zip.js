/**
 * Zip archives whose files are stored without compression: PNG is compressed already.
 *
 * Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.4.
 */

/** The CRC-32 of each byte, by the reflected polynomial 0xedb88320. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** @param {Uint8Array} bytes */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers in little-endian order, two bytes each in `short` and four in `long`. */
const short = (...numbers) => numbers.flatMap((n) => [n & 255, (n >>> 8) & 255]);
const long = (...numbers) => numbers.flatMap((n) => short(n & 0xffff, n >>> 16));

/** The time and the date of a file in the form of MS-DOS, in steps of two seconds since 1980. @param {Date} date */
function dosTime(date) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return short(time, day);
}

/**
 * Makes an archive. Names are ASCII, with / between folders; there are at most 65,535 files, of 4 GiB in all.
 *
 * @param {{name: string, bytes: Uint8Array}[]} files
 * @returns {Blob}
 */
export function zip(files) {
  const version = 20; // 2.0, for folders
  const stored = 0; // the method, after a field of flags
  const time = dosTime(new Date());
  const [parts, directory] = [[], []];
  let offset = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name);
    const about = [...short(version, 0, stored), ...time];
    about.push(...long(crc32(bytes), bytes.length, bytes.length), ...short(path.length, 0));
    const header = Uint8Array.of(...long(0x04034b50), ...about);
    parts.push(header, path, bytes);
    // No comment, the first disk, no attributes; then where the file's header is.
    const end = [...short(0, 0, 0), ...long(0, offset)];
    directory.push(Uint8Array.of(...long(0x02014b50), ...short(version), ...about, ...end), path);
    offset += header.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const counts = short(0, 0, files.length, files.length);
  const end = Uint8Array.of(...long(0x06054b50), ...counts, ...long(size, offset), ...short(0));
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
