//! Where boxes stand: in layers from left to right, in each in the order that crosses
//! the fewest arrows, as level with their neighbours as there is room.

/// A box to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) layer: usize,
}

/// Where a box stands: its upper left corner.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// The whole picture.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    /// For each arrow the points between its ends, one in each layer that it passes,
    /// as left and right end of a level stretch.
    pub(super) routes: Vec<Vec<(Place, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

const GAP_BETWEEN_LAYERS: f64 = 90.0;
const GAP_BETWEEN_BOXES: f64 = 22.0;
/// What an arrow takes that passes a layer.
const LANE: f64 = 10.0;
const SWEEPS: usize = 24;

/// Something in a layer: a box, or an arrow that passes.
struct Item {
    size: Size,
    left: Vec<usize>,
    right: Vec<usize>,
}

/// The layout of these boxes with arrows from and to. An arrow that does not lead to a
/// later layer passes none.
pub(super) fn layout(sizes: &[Size], arrows: &[(usize, usize)]) -> Layout {
    let mut items: Vec<Item> = sizes
        .iter()
        .map(|size| Item { size: *size, left: Vec::new(), right: Vec::new() })
        .collect();
    let passed: Vec<Vec<usize>> =
        arrows.iter().map(|(from, to)| thread(&mut items, *from, *to)).collect();
    let count = items.iter().map(|item| item.size.layer + 1).max().unwrap_or(0);
    let mut layers = vec![Vec::new(); count];
    for (index, item) in items.iter().enumerate() {
        layers[item.size.layer].push(index);
    }
    order(&items, &mut layers);
    let centers = level(&items, &layers);
    let mut x = 0.0;
    let mut lefts = Vec::with_capacity(count);
    let mut widths = Vec::with_capacity(count);
    for layer in &layers {
        let width = layer.iter().map(|item| items[*item].size.width).fold(0.0, f64::max);
        lefts.push(x);
        widths.push(width);
        x += width + GAP_BETWEEN_LAYERS;
    }
    let place = |index: usize| {
        let size = items[index].size;
        Place { x: lefts[size.layer], y: centers[index] - size.height / 2.0 }
    };
    let lane = |index: usize| {
        let layer = items[index].size.layer;
        (Place { x: lefts[layer], y: centers[index] }, widths[layer])
    };
    let bottom = |index: usize| place(index).y + items[index].size.height;
    Layout {
        places: (0..sizes.len()).map(place).collect(),
        routes: passed.iter().map(|lanes| lanes.iter().map(|item| lane(*item)).collect()).collect(),
        width: (x - GAP_BETWEEN_LAYERS).max(0.0),
        height: (0..items.len()).map(bottom).fold(0.0, f64::max),
    }
}

/// Adds an item in each layer between the ends of an arrow.
fn thread(items: &mut Vec<Item>, from: usize, to: usize) -> Vec<usize> {
    let (first, last) = (items[from].size.layer, items[to].size.layer);
    let mut lanes = Vec::new();
    if last <= first {
        return lanes;
    }
    let mut before = from;
    for layer in first + 1..last {
        let size = Size { width: 0.0, height: LANE, layer };
        items.push(Item { size, left: vec![before], right: Vec::new() });
        let lane = items.len() - 1;
        items[before].right.push(lane);
        lanes.push(lane);
        before = lane;
    }
    items[before].right.push(to);
    items[to].left.push(before);
    lanes
}

/// Puts each layer into the order of the means of its neighbours' places, to and fro,
/// and keeps the best.
fn order(items: &[Item], layers: &mut Vec<Vec<usize>>) {
    let mut best = layers.clone();
    let mut fewest = crossings(items, layers);
    for sweep in 0..SWEEPS {
        let forward = sweep % 2 == 0;
        let count = layers.len();
        for step in 1..count {
            let layer = if forward { step } else { count - 1 - step };
            let places = places(items.len(), layers);
            let mean = |item: usize| {
                let of = &items[item];
                let neighbours = if forward { &of.left } else { &of.right };
                match neighbours.len() {
                    0 => places[item],
                    few => neighbours.iter().map(|it| places[*it]).sum::<f64>() / few as f64,
                }
            };
            let mut keyed: Vec<_> = layers[layer].iter().map(|it| (mean(*it), *it)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[layer] = keyed.into_iter().map(|(_, item)| item).collect();
        }
        let now = crossings(items, layers);
        if now < fewest {
            fewest = now;
            best.clone_from(layers);
        }
    }
    *layers = best;
}

/// The place of each item in its layer.
fn places(count: usize, layers: &[Vec<usize>]) -> Vec<f64> {
    let mut places = vec![0.0; count];
    for layer in layers {
        for (place, item) in layer.iter().enumerate() {
            // Layers of unequal length are compared by share.
            places[*item] = (place as f64 + 0.5) / layer.len() as f64;
        }
    }
    places
}

fn crossings(items: &[Item], layers: &[Vec<usize>]) -> usize {
    let places = places(items.len(), layers);
    let mut count = 0;
    for layer in layers {
        let ends = layer
            .iter()
            .flat_map(|item| items[*item].right.iter().map(|to| (places[*item], places[*to])));
        let ends: Vec<_> = ends.collect();
        for (at, one) in ends.iter().enumerate() {
            count += ends[at + 1..]
                .iter()
                .filter(|other| (one.0 - other.0) * (one.1 - other.1) < 0.0)
                .count();
        }
    }
    count
}

/// The height of each item's middle: as near to its neighbours' as the order and the
/// room allow.
fn level(items: &[Item], layers: &[Vec<usize>]) -> Vec<f64> {
    let mut centers = vec![0.0; items.len()];
    for layer in layers {
        let mut y = 0.0;
        for item in layer {
            let height = items[*item].size.height;
            centers[*item] = y + height / 2.0;
            y += height + GAP_BETWEEN_BOXES;
        }
    }
    for sweep in 0..SWEEPS {
        let forward = sweep % 2 == 0;
        for step in 0..layers.len() {
            let layer = &layers[if forward { step } else { layers.len() - 1 - step }];
            let wanted = |item: &usize| {
                let of = &items[*item];
                let neighbours = of.left.iter().chain(&of.right);
                let (sum, few) =
                    neighbours.fold((0.0, 0.0), |(sum, few), it| (sum + centers[*it], few + 1.0));
                if few == 0.0 { centers[*item] } else { sum / few }
            };
            let wanted: Vec<f64> = layer.iter().map(wanted).collect();
            for (item, center) in layer.iter().zip(apart(items, layer, &wanted)) {
                centers[*item] = center;
            }
        }
    }
    let top = items.iter().zip(&centers).map(|(item, center)| center - item.size.height / 2.0);
    let top = top.fold(f64::INFINITY, f64::min);
    centers.iter_mut().for_each(|center| *center -= top);
    centers
}

/// The middles that are nearest to the wanted ones and leave every item its room: what
/// would overlap moves as one (pool adjacent violators).
fn apart(items: &[Item], layer: &[usize], wanted: &[f64]) -> Vec<f64> {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(layer.len());
    for (place, item) in layer.iter().enumerate() {
        let height = items[*item].size.height;
        if place > 0 {
            offset += height / 2.0 + GAP_BETWEEN_BOXES;
        }
        offsets.push(offset);
        offset += height / 2.0;
    }
    // Blocks of items that move together: the sum of what they want, and how many.
    let mut blocks: Vec<(f64, f64)> = Vec::new();
    for (want, offset) in wanted.iter().zip(&offsets) {
        blocks.push((want - offset, 1.0));
        while let [.., before, last] = blocks.as_mut_slice()
            && before.0 / before.1 > last.0 / last.1
        {
            *before = (before.0 + last.0, before.1 + last.1);
            blocks.pop();
        }
    }
    let of_blocks = blocks
        .iter()
        .flat_map(|(sum, many)| std::iter::repeat_n(sum / many, many.round() as usize));
    of_blocks.zip(&offsets).map(|(base, offset)| base + offset).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_boxes_overlap(
            boxes in prop::collection::vec((20.0..300.0, 20.0..120.0, 0_usize..5), 1..40),
            arrows in prop::collection::vec((0_usize..40, 0_usize..40), 0..80),
        ) {
            let sizes: Vec<_> = boxes
                .iter()
                .map(|(width, height, layer)| Size { width: *width, height: *height, layer: *layer })
                .collect();
            let arrows: Vec<_> =
                arrows.iter().map(|(a, b)| (a % sizes.len(), b % sizes.len())).collect();
            let layout = layout(&sizes, &arrows);
            for (a, (one, size)) in layout.places.iter().zip(&sizes).enumerate() {
                prop_assert!(one.x >= 0.0 && one.y > -1e-6);
                prop_assert!(one.x + size.width <= layout.width + 1e-6);
                prop_assert!(one.y + size.height <= layout.height + 1e-6);
                for (other, of_other) in layout.places.iter().zip(&sizes).skip(a + 1) {
                    let beside = one.x + size.width < other.x || other.x + of_other.width < one.x;
                    let below = one.y + size.height < other.y || other.y + of_other.height < one.y;
                    prop_assert!(beside || below, "{one:?} {size:?} and {other:?} {of_other:?}");
                }
            }
        }
    }

    #[test]
    fn arrows_do_not_cross_where_they_need_not() {
        let size = |layer| Size { width: 10.0, height: 10.0, layer };
        let sizes = [size(0), size(0), size(0), size(1), size(1), size(1)];
        let layout = layout(&sizes, &[(0, 5), (1, 4), (2, 3)]);
        let y = |at: usize| layout.places[at].y;
        assert!((y(0) - y(1)) * (y(5) - y(4)) > 0.0 && (y(1) - y(2)) * (y(4) - y(3)) > 0.0);
    }
}
