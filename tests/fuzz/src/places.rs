//! The place database, which an operator brings.

use std::net::IpAddr;

use meridian_wire::place::Places;

/// Any bytes are a database that answers alike each time, or none. A place lies on Earth.
pub fn places(data: &[u8]) {
    let Ok(places) = Places::open(data.to_vec()) else { return };
    let addresses =
        ["198.51.100.140", "10.0.0.1", "255.255.255.255", "2001:db8:3::1", "::", "::ffff:198.51.100.140"];
    for address in addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
        let place = places.look_up(address);
        if let Some(point) = place.coordinates {
            assert!(point.x().abs() <= 180.0 && point.y().abs() <= 90.0, "{point:?}");
        }
        assert_eq!(places.look_up(address), place);
    }
}
