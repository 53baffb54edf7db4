//! Attachments as scanners meet them: something like a JPEG, like a PDF, and a real zip archive. Pure.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, ZlibEncoder};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};

/// A stream within a PDF is no longer.
const STREAM: usize = 200_000;

/// A file: its media type, its name, its bytes.
pub(super) type File = (&'static str, &'static str, Vec<u8>);

/// A file of about so many bytes. `text` is what its readable parts say.
pub(super) fn file(random: &mut StdRng, size: usize, text: &[u8]) -> File {
    match random.random_range(0..10) {
        0..4 => ("image/jpeg", "photo.jpg", jpeg(random, size)),
        4..7 => ("application/pdf", "document.pdf", pdf(random, size, text)),
        _ => ("application/zip", "data.zip", zip(random, size, text)),
    }
}

fn noise(random: &mut StdRng, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    random.fill_bytes(&mut bytes);
    bytes
}

/// The header of a picture, and scan data: no byte FF in it, which would begin another segment.
fn jpeg(random: &mut StdRng, size: usize) -> Vec<u8> {
    let head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x48\x00\x48\x00\x00";
    let mut bytes = head.to_vec();
    bytes.extend(noise(random, size).into_iter().map(|byte| if byte == 0xff { 0xfe } else { byte }));
    bytes.extend_from_slice(b"\xff\xd9");
    bytes
}

/// One page whose streams are pictures, and now and then compressed text.
fn pdf(random: &mut StdRng, size: usize, text: &[u8]) -> Vec<u8> {
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R >>".to_vec(),
    ];
    let mut left = size;
    while left > 0 {
        let (filter, stream) = if objects.len() == 3 || random.random_bool(0.2) {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            // Writing into memory does not fail.
            let _ = encoder.write_all(&[b"BT /F1 12 Tf (", text, b") Tj ET"].concat());
            ("/Filter /FlateDecode", encoder.finish().unwrap_or_default())
        } else {
            ("/Subtype /Image /Filter /DCTDecode", noise(random, left.min(STREAM)))
        };
        left = left.saturating_sub(stream.len().max(1));
        let head = format!("<< {filter} /Length {} >>\nstream\n", stream.len());
        objects.push([head.as_bytes(), &stream, b"\nendstream"].concat());
    }
    let (mut bytes, mut offsets) = (b"%PDF-1.4\n".to_vec(), Vec::new());
    for (index, object) in objects.iter().enumerate() {
        offsets.push(bytes.len());
        bytes.extend_from_slice(format!("{} 0 obj\n", index + 1).as_bytes());
        bytes.extend_from_slice(object);
        bytes.extend_from_slice(b"\nendobj\n");
    }
    let (table, count) = (bytes.len(), objects.len() + 1);
    bytes.extend_from_slice(format!("xref\n0 {count}\n0000000000 65535 f \n").as_bytes());
    offsets.iter().for_each(|offset| bytes.extend_from_slice(format!("{offset:010} 00000 n \n").as_bytes()));
    let trailer = format!("trailer << /Size {count} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n");
    bytes.extend_from_slice(trailer.as_bytes());
    bytes
}

/// An archive with a table, compressed, and a scan, stored.
fn zip(random: &mut StdRng, size: usize, text: &[u8]) -> Vec<u8> {
    let table: Vec<u8> = text.iter().copied().cycle().take((size / 4).min(500_000)).collect();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(&table);
    let packed = encoder.finish().unwrap_or_default();
    let scan = noise(random, size.saturating_sub(packed.len()));
    let members: [(&str, u16, &[u8], &[u8]); 2] = [("table.csv", 8, &table, &packed), ("scan.bin", 0, &scan, &scan)];
    let (mut bytes, mut directory) = (Vec::with_capacity(size + 300), Vec::new());
    for (name, method, content, stored) in members {
        let mut sum = flate2::Crc::new();
        sum.update(content);
        // Version 2.0, no flags, the method; 1 January 2024; checksum, sizes, the length of the name, nothing extra.
        let mut fields = Vec::new();
        for number in [20, 0, method, 0, 0x5821] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        for number in [sum.sum(), stored.len() as u32, content.len() as u32] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&(name.len() as u16).to_le_bytes());
        fields.extend_from_slice(&[0; 2]);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(stored);
    }
    let (at, length) = (bytes.len() as u32, directory.len() as u32);
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0\x02\0\x02\0");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn they_are_as_large_as_asked() {
        let mut random = StdRng::seed_from_u64(1);
        for size in [300_000, 2_000_000] {
            let files = [jpeg(&mut random, size), pdf(&mut random, size, b"text"), zip(&mut random, size, b"1;2\n")];
            for length in files.map(|file| file.len()) {
                assert!(length.abs_diff(size) < size / 20, "{length} for {size}");
            }
        }
    }

    #[test]
    fn the_archive_can_be_unpacked() {
        let bytes = zip(&mut StdRng::seed_from_u64(1), 10_000, b"1;2;3\n");
        let stored = u32::from_le_bytes(bytes[18..22].try_into().unwrap()) as usize;
        let mut table = Vec::new();
        flate2::read::DeflateDecoder::new(&bytes[39..39 + stored]).read_to_end(&mut table).unwrap();
        assert!(table.len() == 2500 && table.starts_with(b"1;2;3\n1;2;3\n"));
        assert!(bytes[39 + stored..].starts_with(b"PK\x03\x04"));
    }
}
