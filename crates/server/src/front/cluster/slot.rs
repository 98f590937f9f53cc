//! Which slot of a cluster a key belongs to.

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = 16_384;

/// The slot of a key: of what stands in its first braces, if anything does.
#[inline]
pub(crate) fn slot_of(key: &[u8]) -> usize {
    usize::from(crc16(hashed_part(key))) % SLOTS
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let behind = &key[open + 1..];
    match behind.iter().position(|&byte| byte == b'}') {
        Some(length @ 1..) => &behind[..length],
        _ => key,
    }
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in
            [(&b"foo"[..], 12_182), (b"a{foo}b{bar}", 12_182), (b"{foo", 13_308), (b"", 0)]
        {
            assert_eq!(slot_of(key), slot, "{key:?}");
        }
        assert_eq!(slot_of(b"{}foo"), usize::from(crc16(b"{}foo")) % SLOTS);
        assert_eq!(slot_of(b"x{{a}}"), slot_of(b"{a"));
    }

    proptest! {
        #[test]
        fn slots_are_as_the_testkit_has_them(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let expected = larder_testkit::redis::Cluster::slot(&key);
            prop_assert_eq!(slot_of(&key), usize::from(expected));
        }
    }
}
