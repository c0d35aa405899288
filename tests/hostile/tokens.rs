//! JSON web tokens that are signed or addressed wrongly.
