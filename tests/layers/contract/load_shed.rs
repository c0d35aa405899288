//! The contract over the layer that sheds load. It is always ready, so the checks that ask it to be full do not apply.

use tower_kernels::layers::LoadShedLayer;

use crate::contract::layers::{
    Around, SECOND, adds_at_most, around, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};
use crate::support::checks;

type Predicting = LoadShedLayer<tower_kernels::middleware::load_shed::Predicted>;

fn predicting() -> Around<Predicting> {
    let layer = LoadShedLayer::predicting(SECOND);
    let gauge = layer.clone();
    gauged(layer, move || gauge.snapshot().in_flight)
}

macro_rules! always_ready {
    ($($name:ident: $subject:expr;)*) => {$(
        mod $name {
            use super::*;

            always_ready!(@ $subject;
                polled_ready_twice_it_reserves_once,
                ready_and_dropped_uncalled_gives_the_place_back,
                a_future_dropped_unpolled_gives_the_place_back,
                a_future_dropped_after_one_poll_gives_the_place_back,
                an_answer_gives_the_place_back_before_the_future_is_dropped,
                a_failure_gives_the_place_back,
                the_service_that_was_polled_ready_is_the_one_that_is_called,
                waiting_for_an_answer_does_not_wake_itself,
                it_serves_after_everything_was_dropped,
                it_crosses_threads,
            );
        }
    )*};
    (@ $subject:expr; $($check:ident,)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $check() {
            checks::$check($subject).await;
        }
    )*};
}

always_ready! {
    load_shed: around(LoadShedLayer::new());
    load_shed_predicting: predicting();
}

of_each_layer! {
    // Both keep the request, the service and a timer, for a call that waits for readiness.
    load_shed_as_a_layer: around(LoadShedLayer::new()), 272;
    load_shed_predicting_as_a_layer: predicting(), 336;
}
