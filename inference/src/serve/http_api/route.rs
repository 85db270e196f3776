//! What paths mean.

use http::Method;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether the server is up.
    Live,
    /// Whether the server answers inferences.
    Ready,
    /// What the server is.
    Server,
    /// What a model takes and gives.
    Model,
    /// Whether a model answers inferences.
    ModelReady,
    /// Inference.
    Infer,
    /// How a model is served.
    Config,
    /// What was asked of one model or of all.
    Stats,
    /// Which models there are.
    Index,
    /// Changes the models, which is refused.
    Change,
    /// Metrics for Prometheus.
    Metrics,
    /// Nothing that is here.
    Unknown,
}

/// A path taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) route: Route,
    /// Name of the model, where one is named.
    pub(super) model: &'a str,
    /// Its version or number; empty for whichever is served.
    pub(super) version: &'a str,
}

impl Route {
    /// All of them, by the number that counters know them by.
    pub(super) const ALL: [Route; 12] = [
        Route::Live,
        Route::Ready,
        Route::Server,
        Route::Model,
        Route::ModelReady,
        Route::Infer,
        Route::Config,
        Route::Stats,
        Route::Index,
        Route::Change,
        Route::Metrics,
        Route::Unknown,
    ];

    /// Its name as a label: the path, with `:model` for whichever model.
    pub(super) fn name(self) -> &'static str {
        match self {
            Route::Live => "/v2/health/live",
            Route::Ready => "/v2/health/ready",
            Route::Server => "/v2",
            Route::Model => "/v2/models/:model",
            Route::ModelReady => "/v2/models/:model/ready",
            Route::Infer => "/v2/models/:model/infer",
            Route::Config => "/v2/models/:model/config",
            Route::Stats => "/v2/models/:model/stats",
            Route::Index => "/v2/repository/index",
            Route::Change => "/v2/repository/models/:model/:change",
            Route::Metrics => "/metrics",
            Route::Unknown => "unknown",
        }
    }

    /// How it is asked for.
    pub(super) fn method(self) -> Method {
        match self {
            Route::Infer | Route::Index | Route::Change => Method::POST,
            _ => Method::GET,
        }
    }
}

impl<'a> Target<'a> {
    /// What a path means. Names of models are plain, so nothing in a path stands for another character.
    pub(super) fn of(path: &'a str) -> Self {
        let plain = |route| Target { route, model: "", version: "" };
        let parts: Vec<&str> = path.trim_matches('/').splitn(7, '/').collect();
        let (model, version, rest) = match parts.as_slice() {
            ["v2"] => return plain(Route::Server),
            ["v2", "health", "live"] => return plain(Route::Live),
            ["v2", "health", "ready"] => return plain(Route::Ready),
            ["metrics"] => return plain(Route::Metrics),
            ["v2", "models", "stats"] => return plain(Route::Stats),
            ["v2", "repository", "index"] => return plain(Route::Index),
            ["v2", "repository", "models", model, "load" | "unload"] => {
                return Target { route: Route::Change, model, version: "" };
            }
            ["v2", "models", model, "versions", version, rest @ ..] => (*model, *version, rest),
            ["v2", "models", model, rest @ ..] => (*model, "", rest),
            _ => return plain(Route::Unknown),
        };
        let route = match rest {
            [] => Route::Model,
            ["ready"] => Route::ModelReady,
            ["infer"] => Route::Infer,
            ["config"] => Route::Config,
            ["stats"] => Route::Stats,
            _ => return plain(Route::Unknown),
        };
        Target { route, model, version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_the_protocol_says() {
        let check =
            |path, route, model, version| assert_eq!(Target::of(path), Target { route, model, version }, "{path}");
        check("/v2", Route::Server, "", "");
        check("/v2/", Route::Server, "", "");
        check("/v2/health/live", Route::Live, "", "");
        check("/v2/health/ready", Route::Ready, "", "");
        check("/metrics", Route::Metrics, "", "");
        check("/v2/models/policy", Route::Model, "policy", "");
        check("/v2/models/policy/ready", Route::ModelReady, "policy", "");
        check("/v2/models/policy/infer", Route::Infer, "policy", "");
        check("/v2/models/policy/config", Route::Config, "policy", "");
        check("/v2/models/policy/versions/4/config", Route::Config, "policy", "4");
        check("/v2/models/policy/stats", Route::Stats, "policy", "");
        check("/v2/models/policy/versions/4/stats", Route::Stats, "policy", "4");
        check("/v2/models/stats", Route::Stats, "", "");
        check("/v2/repository/index", Route::Index, "", "");
        check("/v2/repository/models/policy/load", Route::Change, "policy", "");
        check("/v2/repository/models/policy/unload", Route::Change, "policy", "");
        check("/v2/repository/models/policy/sell", Route::Unknown, "", "");
        check("/v2/models/policy/versions/4", Route::Model, "policy", "4");
        check("/v2/models/policy/versions/4/ready", Route::ModelReady, "policy", "4");
        check("/v2/models/policy/versions/4/infer", Route::Infer, "policy", "4");
        for path in ["", "/", "/v1", "/v2/models", "/v2/models/a/b", "/v2/models/a/versions", "/v2/models/a/infer/b"] {
            check(path, Route::Unknown, "", "");
        }
        check("/v2/models/a/versions/4/infer/b/c/d", Route::Unknown, "", "");
        for (number, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, number);
        }
    }
}
