//! How a refusal is told from another.

/// Checks that the result is a refusal of this variant with this text.
macro_rules! refused {
    ($result:expr, $variant:ident, $text:expr) => {{
        let error = $result.expect_err("the model must be refused");
        assert!(matches!(error, ModelError::$variant { .. }), "{error:?}");
        assert!(error.to_string().contains($text), "{error}");
    }};
}
