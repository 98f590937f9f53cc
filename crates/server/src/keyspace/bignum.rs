/// A natural number of any size, in digits of 32 bits, the lowest first.
#[derive(Clone, Debug)]
pub(super) struct Bignum(Vec<u32>);

impl From<u64> for Bignum {
    fn from(number: u64) -> Self {
        let mut bignum = Self(vec![number as u32, (number >> 32) as u32]);
        bignum.trim();
        bignum
    }
}

impl Bignum {
    /// How many bits it has from the highest that is set; none for 0.
    pub(super) fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    pub(super) fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for digit in &mut self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            *digit = carry as u32;
            carry >>= 32;
        }
        self.0.push(carry as u32);
        self.trim();
    }

    /// Divides and returns the remainder. The divisor must not be 0.
    pub(super) fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0_u64;
        for digit in self.0.iter_mut().rev() {
            let dividend = remainder << 32 | u64::from(*digit);
            *digit = (dividend / u64::from(divisor)) as u32;
            remainder = dividend % u64::from(divisor);
        }
        self.trim();
        remainder as u32
    }

    pub(super) fn shift_left(&mut self, bits: usize) {
        self.multiply_add(1 << (bits % 32), 0);
        if !self.0.is_empty() {
            self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
        }
    }

    /// The bits from `bits` on, of which there must be at most 128, and whether
    /// any below them is set.
    pub(super) fn shifted_right(&self, bits: usize) -> (u128, bool) {
        let (digits, rest) = (bits / 32, bits % 32);
        let above = self.0.iter().skip(digits).enumerate();
        let shifted = above.fold(0_u128, |sum, (index, digit)| {
            let place = index as i64 * 32 - rest as i64;
            let digit = u128::from(*digit);
            sum | if place < 0 { digit >> -place } else { digit << place }
        });
        let below = self.0.iter().take(digits).any(|digit| *digit != 0);
        let split = self.0.get(digits).is_some_and(|digit| digit & ((1 << rest) - 1) != 0);
        (shifted, below || split)
    }

    pub(super) fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.0.is_empty() {
            groups.push(rest.divide(1_000_000_000));
        }
        let Some(first) = groups.pop() else { return "0".to_owned() };
        let mut text = first.to_string();
        groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
        text
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arithmetic_is_that_of_wide_integers(
            number: u64, factor in 0_u32.., summand in 0_u32.., divisor in 1_u32.., shift in 0_usize..32,
        ) {
            let mut bignum = Bignum::from(number);
            bignum.multiply_add(factor, summand);
            let mut model = u128::from(number) * u128::from(factor) + u128::from(summand);
            prop_assert_eq!(bignum.shifted_right(0), (model, false));
            bignum.shift_left(shift);
            model <<= shift;
            prop_assert_eq!(bignum.to_decimal(), model.to_string());
            prop_assert_eq!(bignum.bits(), (128 - model.leading_zeros()) as usize);
            let lost = model & ((1 << shift) - 1) != 0;
            prop_assert_eq!(bignum.shifted_right(shift), (model >> shift, lost));
            prop_assert_eq!(u128::from(bignum.divide(divisor)), model % u128::from(divisor));
            prop_assert_eq!(bignum.to_decimal(), (model / u128::from(divisor)).to_string());
        }

        #[test]
        fn a_long_shift_moves_whole_digits(number in 1_u64.., shift in 0_usize..5000) {
            let mut bignum = Bignum::from(number);
            bignum.shift_left(shift);
            prop_assert_eq!(bignum.bits(), shift + (64 - number.leading_zeros()) as usize);
            prop_assert_eq!(bignum.shifted_right(shift), (u128::from(number), false));
        }
    }
}
