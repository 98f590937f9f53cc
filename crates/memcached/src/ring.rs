//! Which server has which key.

use md5::{Digest, Md5};

use crate::ServerAddress;

/// Points on the ring for a server of average weight.
const POINTS_PER_SERVER: f32 = 160.0;
/// One digest gives so many points.
const POINTS_PER_DIGEST: usize = 4;
/// Servers on this port are named without it.
const UNNAMED_PORT: u16 = 11211;

/// The weighted ketama ring of libmemcached (`MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`
/// with its MD5 hash): clients that use that find the same servers.
///
/// A server of weight `w` among `n` servers of weight `W` together has
/// `4 · ⌊40 · n · w / W⌋` points, computed in 32-bit floats as libmemcached does.
/// They are the four little-endian words of the MD5 of `host:port-0`,
/// `host:port-1` and so on, and of `host-0` for port 11211. A key belongs to the
/// first point at or above the first word of its own MD5. Of two servers with a
/// point at one place the one that is named first has it; libmemcached's sort
/// leaves that open.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// Sorted by place. The server's index is that in the list given.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// The ring of these servers, of which only those that are alive have points.
    pub(crate) fn new(servers: &[ServerAddress], is_alive: impl Fn(usize) -> bool) -> Self {
        let alive: Vec<(usize, &ServerAddress)> =
            servers.iter().enumerate().filter(|(index, _)| is_alive(*index)).collect();
        let weights: u64 = alive.iter().map(|(_, server)| u64::from(server.weight)).sum();
        let mut points = Vec::new();
        for (index, server) in &alive {
            for digest_index in 0..digests_count(server.weight, weights, alive.len()) {
                let digest = Md5::digest(point_name(server, digest_index));
                let words = digest.chunks_exact(4).take(POINTS_PER_DIGEST);
                points.extend(words.map(|word| (first_word(word), *index as u32)));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The index of the server that has this key; `None` if none is alive.
    pub(crate) fn server(&self, key: &[u8]) -> Option<usize> {
        self.point_at_or_above(first_word(&Md5::digest(key))).map(|(_, server)| server)
    }

    fn point_at_or_above(&self, place: u32) -> Option<(u32, usize)> {
        let index = self.points.partition_point(|(point, _)| *point < place);
        let point = self.points.get(index).or_else(|| self.points.first())?;
        Some((point.0, point.1 as usize))
    }
}

fn digests_count(weight: u32, weights: u64, servers: usize) -> usize {
    let share = weight as f32 / weights as f32;
    // The tiny addend is libmemcached's. There it is a double and so is the sum,
    // which is rounded to a float again before it is cut off.
    let digests = f64::from(share * POINTS_PER_SERVER / 4.0 * servers as f32) + 0.000_000_000_1;
    (digests as f32).floor() as usize
}

fn point_name(server: &ServerAddress, index: usize) -> String {
    match server.port {
        UNNAMED_PORT => format!("{}-{index}", server.host),
        port => format!("{}:{port}-{index}", server.host),
    }
}

fn first_word(digest: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&digest[..4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<ServerAddress> {
        let address = |(index, weight): (usize, &u32)| ServerAddress {
            host: format!("10.0.1.{}", index + 1),
            port: UNNAMED_PORT,
            weight: *weight,
        };
        weights.iter().enumerate().map(address).collect()
    }

    /// The set of servers and the keys that libmemcached tests its ring with, in
    /// `tests/ketama_test_cases.h`: a key, its place, the place of its point, and
    /// the last part of the server's address.
    const WEIGHTS: [u32; 8] = [600, 300, 200, 350, 1000, 800, 950, 100];
    const VECTORS: [(&str, u32, u32, usize); 99] = [
        ("SVa_]_V41)", 443691461, 445379617, 7),
        ("*/Z;?V(.\\8", 1422915503, 1428303028, 1),
        ("30C1*Z*S/_", 1473165754, 1480075959, 2),
        ("ERR:EC58G>", 2148406511, 2168579133, 7),
        ("1I=cTMNTKF", 2882686667, 2885206587, 5),
        ("]VG<`I*Z8)", 1103544263, 1104827657, 5),
        ("UUTC`-V159", 3716288206, 3727224240, 5),
        ("@7RU6C6T+Z", 3862737685, 3871917949, 5),
        ("/XLN0@+36;", 1623269830, 1627683651, 1),
        ("4(`X;\\V.^c", 373546328, 383925769, 1),
        ("726bW=9*a4", 4213440020, 4213950705, 7),
        ("\\`)<B)UE,c", 951096736, 955226069, 1),
        ("P1[Ma3=K1/", 1989324036, 1994028240, 8),
        ("C89I.-V?cT", 1604239957, 1606398093, 8),
        ("D[HE+cFXDK", 2117036136, 2117124014, 3),
        ("P1L?NAB[)K", 2129972569, 2132542634, 1),
        ("cDT0)Z5P6,", 176485284, 178675413, 5),
        ("@JW`+[WAO8", 2720940826, 2743975456, 5),
        ("\\39DKW^)N_", 3548879868, 3550704865, 3),
        ("EM75N0+[X1", 1558531507, 1559308507, 4),
        ("`,SS]NBP,b", 1883545960, 1884847278, 1),
        ("XX1a9LT+F?", 653487707, 656410408, 5),
        ("Zc\\-,F-c6V", 1160802451, 1171575728, 5),
        ("1*RTMC7,03", 1602398012, 1606398093, 8),
        ("*Xc+V0P>32", 536016577, 539988520, 7),
        ("U))Fb-(`,.", 4128682289, 4136854163, 7),
        ("R-08RNTaRT", 3718170086, 3727224240, 5),
        ("(LHcO203I3", 1007779411, 1014643570, 5),
        ("=256P+;Qc8", 3976201210, 3976304873, 5),
        ("OI5XZ_BBT(", 2155922164, 2168579133, 7),
        ("2TLRL/UL;:", 1086800909, 1095659802, 7),
        ("WHD\\O1`ZRW", 3087923411, 3095471560, 5),
        (".=54)_c;=T", 2497691631, 2502731301, 1),
        (";G<W-XWZ@b", 2888169733, 2888728739, 5),
        ("(,>E`)FT\\4", 580747448, 581063326, 2),
        ("HZAU*;P*N]", 2564670474, 2565697267, 7),
        ("NZ@ZE=O84_", 533335275, 539988520, 7),
        ("6,cEI`F_P>", 3972869246, 3974773167, 6),
        ("c,5AQ/T5)6", 2835605783, 2847870057, 8),
        (".O,>>BT)RX", 3857978174, 3871917949, 5),
        ("XY\\X::LX50", 1749241099, 1752196488, 6),
        ("+550F^/.01", 3781824099, 3783248219, 6),
        ("<.X9E2S5+9", 3232479481, 3234387706, 7),
        ("]\\.UH8_0a1", 2419699252, 2423002920, 4),
        ("8(6=(T0/Z0", 728266737, 729026070, 7),
        ("8*6a;Sc*X+", 4223431086, 4230156966, 2),
        ("<QW:;3K6;H", 2731158143, 2743975456, 5),
        ("7C@EY@-Y?_", 760770733, 761576669, 5),
        ("aPb3E1WD4K", 2500489218, 2502731301, 1),
        ("?@12R<=1BH", 1494795329, 1502505505, 8),
        ("QR(a+Q=1FU", 3238535074, 3238996435, 6),
        ("`C9^FV,960", 2628553463, 2628733766, 6),
        ("UNHVP..^8H", 977096483, 977319837, 4),
        (":Y.2W2[(35", 2777083668, 2784182515, 7),
        ("M/HV^_HZ4O", 3623390946, 3624445007, 7),
        ("ZY16KQ<ICD", 1831153193, 1838563516, 4),
        ("bV2,`a.PY9", 1962228869, 1962648654, 1),
        ("U;9:-+5N]9", 269504649, 277560877, 1),
        ("1S/:aJ[1(;", 578069729, 581063326, 2),
        ("Nb-X^]M)I:", 330865696, 331009896, 6),
        ("2;M;ES>J5/", 2776949824, 2784182515, 7),
        ("[>RZHG97Q9", 71954686, 72034069, 6),
        ("J3/G[)9<^Z", 2799896459, 2805183696, 7),
        ("N-)88>[O`,", 50404102, 51792557, 5),
        ("NP:=FR\\OaA", 3837333776, 3837792034, 7),
        ("`@L+W;a,O[", 1512157148, 1522285852, 6),
        ("W2`P:-+1T[", 2945171975, 2946196424, 5),
        ("-6G7K^YDIN", 3168617340, 3170513015, 7),
        ("U>*>9ZI6V5", 668514946, 674097631, 6),
        (".I?^6Ic9RK", 938419020, 942832691, 6),
        ("0OZH^9BKM[", 3682518606, 3686781297, 8),
        ("5?50UGZ:ML", 868610882, 869425986, 5),
        ("?K2NF@3=IU", 381218851, 383925769, 1),
        ("YI@G-2X?UB", 3688706179, 3693197681, 5),
        ("7cY</BSaL=", 3976870223, 3978903843, 6),
        ("A(`KF:[RH8", 3292979676, 3294849139, 6),
        (";=ZT\\W^P+H", 1401102653, 1416290674, 4),
        ("b2?WFF56;R", 480494704, 486971192, 4),
        ("CTR74,J+N.", 137446045, 146633907, 8),
        ("<b;*R+QDST", 1304985302, 1308223778, 5),
        ("\\R^7=9UCG`", 126218373, 129199837, 5),
        ("1bQS5]WOXB", 1853470245, 1855329369, 4),
        ("M(@X^b[L:K", 3019630308, 3022260113, 1),
        ("431cBF8,YO", 1679726993, 1685224295, 7),
        ("(bEIQJ:E./", 2922607787, 2925521819, 6),
        ("WS/3H*)7F;", 419488232, 422140585, 5),
        ("ZJF[Ia6Q)+", 3960568056, 3962489998, 7),
        ("<]*QCK8U,>", 2590140172, 2598117636, 7),
        ("\\[a\\^=V_M0", 689410119, 698690782, 6),
        ("7;RM+8J9YC", 1530175299, 1531107082, 7),
        ("4*=.SPR[AV", 3928582722, 3928853792, 1),
        ("-2F+^88P4U", 3023552752, 3025823613, 7),
        ("X;-F`(N?9D", 570465234, 572485994, 7),
        ("R=F_D-K2a]", 1287750228, 1290935562, 7),
        ("X*+2aaC.EG", 3200948713, 3201088518, 5),
        ("[1ZXONX2]a", 4108881567, 4109865744, 4),
        ("FL;\\GWacaV", 458449508, 467374054, 4),
        ("\\MQ_XNT7L-", 1259349383, 1259509450, 7),
        ("VD6D0]ba_\\", 3842502950, 3842588691, 1),
    ];

    #[test]
    fn keys_are_where_libmemcached_has_them() {
        let ring = Ring::new(&servers(&WEIGHTS), |_| true);
        for (key, place, point, server) in VECTORS {
            assert_eq!(first_word(&Md5::digest(key)), place, "{key}");
            assert_eq!(ring.server(key.as_bytes()), Some(server - 1), "{key}");
            let found = ring.point_at_or_above(place);
            assert_eq!(found.map(|(point, _)| point), Some(point), "{key}");
        }
    }

    #[test]
    fn behind_the_last_point_comes_the_first() {
        let ring = Ring::new(&servers(&WEIGHTS), |_| true);
        // The published example of a key behind the last point.
        assert_eq!(first_word(&Md5::digest("VDEAAAAA")), 0xfffc_d1b5);
        assert!(ring.points.last().is_some_and(|(point, _)| *point < 0xfffc_d1b5));
        let first = ring.points.first().map(|(_, server)| *server as usize);
        assert_eq!(ring.server(b"VDEAAAAA"), first);
    }

    #[test]
    fn equal_servers_have_160_points_each_and_similar_shares() {
        let ring = Ring::new(&servers(&[7; 5]), |_| true);
        assert_eq!(ring.points.len(), 5 * 160);
        let mut shares = [0_u32; 5];
        for key in 0..10_000 {
            shares[ring.server(format!("key:{key}").as_bytes()).expect("all are alive")] += 1;
        }
        assert!(shares.iter().all(|share| (1_400..=2_600).contains(share)), "{shares:?}");
    }

    #[test]
    fn only_the_keys_of_a_dead_server_move() {
        let servers = servers(&[1; 4]);
        let (whole, without) =
            (Ring::new(&servers, |_| true), Ring::new(&servers, |index| index != 2));
        let keys: Vec<String> = (0..1_000).map(|key| format!("key:{key}")).collect();
        for key in &keys {
            let (before, after) = (whole.server(key.as_bytes()), without.server(key.as_bytes()));
            assert_ne!(after, Some(2));
            assert!(before == after || before == Some(2), "{key}: {before:?}, then {after:?}");
        }
        assert_eq!(Ring::new(&servers, |_| false).server(b"key"), None);
    }

    #[test]
    fn a_port_of_ones_own_is_part_of_the_name() {
        let mut server = servers(&[1]).remove(0);
        assert_eq!(point_name(&server, 3), "10.0.1.1-3");
        server.port = 1234;
        assert_eq!(point_name(&server, 3), "10.0.1.1:1234-3");
    }
}
