//! Regions with several addresses, each as good as the others.

use super::*;

/// A world whose regions have two addresses each.
fn doubled() -> World {
    let mut world = world();
    for region in &mut world.platform.regions {
        region.origins.push(format!("http://{}.second.example", region.id).into());
    }
    world
}

/// The base URLs to try, in order, as `REGION NUMBER`.
fn addresses(plan: &Plan) -> Vec<String> {
    let address = |candidate: &Candidate| format!("{} {}", candidate.region, candidate.number.unwrap());
    plan.candidates.iter().map(address).collect()
}

#[test]
fn the_addresses_of_a_region_are_tried_in_order_and_before_the_next_region() {
    let mut world = doubled();
    let plan = world.plan(NOW_MS);
    assert_eq!(
        addresses(&plan),
        [US, EU, AP].iter().flat_map(|id| [format!("{id} 1"), format!("{id} 2")]).collect::<Vec<_>>()
    );
    assert_eq!(plan.order().to_string(), "us-east-1, eu-west-1, ap-southeast-1");
    // One that is slower than the other does not come behind another region for it.
    world.steering.strategy = Strategy::Latency;
    let (first, second) = (plan.candidates[0].clone(), plan.candidates[1].clone());
    world.memory.record(&acme(), &second, AttemptOutcome::Answered, Some(1), NOW_MS);
    world.memory.record(&acme(), &first, AttemptOutcome::Answered, Some(40), NOW_MS);
    assert_eq!(addresses(&world.plan(NOW_MS))[..2], ["us-east-1 1", "us-east-1 2"]);
}

#[test]
fn an_address_that_fails_is_left_alone_and_its_region_only_with_the_last() {
    let mut world = doubled();
    let plan = world.plan(NOW_MS);
    let (first, second) = (plan.candidates[0].clone(), plan.candidates[1].clone());
    let fail = |world: &mut World, candidate: &Candidate, now_ms: u64| {
        for _ in 0..EJECT_FAILURES {
            world.memory.record(&acme(), candidate, AttemptOutcome::Failed, None, now_ms);
        }
    };
    fail(&mut world, &first, NOW_MS);
    let plan = world.plan(NOW_MS);
    assert_eq!(addresses(&plan)[..2], ["us-east-1 2", "eu-west-1 1"]);
    assert_eq!((plan.excluded.as_slice(), plan.ejected.as_slice()), (&[][..], &[(US.into(), 1)][..]));
    assert_eq!(plan.left_out(), "us-east-1 address 1 ejected");
    fail(&mut world, &second, NOW_MS);
    let plan = world.plan(NOW_MS);
    assert_eq!(addresses(&plan)[0], "eu-west-1 1");
    assert_eq!((plan.left_out().as_str(), plan.ejected.len()), ("us-east-1 ejected", 0));
    // Where nothing else is left, all of them are.
    world.tenant.allowed_regions = vec![US.into()];
    let plan = world.plan(NOW_MS);
    assert_eq!(
        (addresses(&plan).as_slice(), plan.left_out().as_str()),
        (
            &["us-east-1 1", "us-east-1 2"].map(str::to_owned)[..],
            "ap-southeast-1 residency, eu-west-1 residency"
        )
    );
    assert!(plan.candidates.iter().all(|candidate| candidate.standing == Standing::LastResort));
    // One request tries the first again, and the others go on with the second.
    let later = NOW_MS + EJECT_MS_MIN;
    assert!(world.memory.attempt(&acme(), &second, 0, later));
    world.memory.record(&acme(), &second, AttemptOutcome::Answered, Some(5), later);
    assert!(world.memory.attempt(&acme(), &first, 0, later));
    assert_eq!(addresses(&world.plan(later)), ["us-east-1 2"]);
    world.memory.record(&acme(), &first, AttemptOutcome::Answered, Some(5), later);
    assert_eq!(addresses(&world.plan(later)), ["us-east-1 1", "us-east-1 2"]);
}

#[test]
fn a_region_that_is_unhealthy_is_so_at_every_address() {
    let mut world = doubled();
    world.hear(&[(US, 1, false, &[]), (EU, 2, true, &[])]);
    let plan = world.plan(NOW_MS);
    assert!(addresses(&plan).iter().all(|address| !address.starts_with(US)));
    assert_eq!(plan.left_out(), "us-east-1 unhealthy");
    world.platform.regions[1].state = RegionState::Down;
    world.tenant.allowed_regions = vec![EU.into()];
    assert!(world.plan(NOW_MS).candidates.is_empty());
}

#[test]
fn a_region_that_is_behind_is_so_at_every_address() {
    let mut plan = doubled().plan(NOW_MS);
    assert_eq!(&*plan.take_next().unwrap().region, US);
    plan.prefer_source(&US.into(), 3);
    let expect = [AP, EU].iter().flat_map(|id| [format!("{id} 1"), format!("{id} 2")]).collect::<Vec<_>>();
    assert_eq!(addresses(&plan), expect);
    assert_eq!(plan.elsewhere(&AP.into()).unwrap().base, plan.candidates[2].base);
    plan.prefer_elsewhere(&AP.into());
    assert_eq!(addresses(&plan)[..2], ["eu-west-1 1", "ap-southeast-1 1"]);
}

#[test]
fn no_region_that_stands_worse_comes_before_the_other_address() {
    let mut world = doubled();
    world.positions = vec![(3, 7)];
    // Of those that take traffic, only the first has what the session has seen.
    world.hear(&[(US, 1, true, &[(3, 7)]), (EU, 2, true, &[(3, 6)])]);
    world.platform.regions[0].state = RegionState::Down;
    let mut plan = world.plan(NOW_MS);
    assert_eq!(addresses(&plan), ["us-east-1 1", "us-east-1 2", "eu-west-1 1", "eu-west-1 2"]);
    assert_eq!(plan.candidates[2].standing, Standing::Behind);
    assert_eq!(&*plan.take_next().unwrap().region, US);
    plan.prefer_elsewhere(&US.into());
    assert_eq!(addresses(&plan), ["us-east-1 2", "eu-west-1 1", "eu-west-1 2"]);
    // Where all are behind, none stands worse.
    world.hear(&[(US, 1, true, &[(3, 6)]), (EU, 2, true, &[(3, 6)])]);
    let mut plan = world.plan(NOW_MS);
    assert_eq!(&*plan.take_next().unwrap().region, US);
    plan.prefer_elsewhere(&US.into());
    assert_eq!(addresses(&plan), ["eu-west-1 1", "us-east-1 2", "eu-west-1 2"]);
    plan.candidates.clear();
    plan.prefer_elsewhere(&US.into());
    assert!(plan.candidates.is_empty());
}
