//! Why a stage has no answer for a mail, and what that means: again later, or never.

use anyhow::anyhow;

/// A stage could not decide.
///
/// `?` on any error means [`Fault::Later`]: the mail waits and is tried again. [`Fault::Never`] is written out, with a
/// reason, and only where trying again cannot help: the mail is buried for an operator. When in doubt, later.
#[derive(Debug)]
pub enum Fault {
    /// Try again: something that the mail needs is not there at the moment.
    Later(anyhow::Error),
    /// The mail's body is nowhere: either the mail has ended by another round, or its body comes again.
    Missed(anyhow::Error),
    /// Trying again would end the same way.
    Never(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Later(error.into())
    }
}

impl Fault {
    /// A fault that trying again cannot mend.
    pub fn never(reason: impl std::fmt::Display) -> Self {
        Self::Never(anyhow!("{reason}"))
    }

    /// A fault that passes.
    pub fn later(reason: impl std::fmt::Display) -> Self {
        Self::Later(anyhow!("{reason}"))
    }
}

/// Turns an absence or an error into [`Fault::Never`].
pub trait OrNever<T> {
    /// The value, or a fault that is final, with `reason` before whatever the error itself says.
    ///
    /// # Errors
    /// [`Fault::Never`] when there is no value.
    fn or_never(self, reason: &str) -> Result<T, Fault>;
}

impl<T> OrNever<T> for Option<T> {
    fn or_never(self, reason: &str) -> Result<T, Fault> {
        self.ok_or_else(|| Fault::never(reason))
    }
}

impl<T, E: Into<anyhow::Error>> OrNever<T> for Result<T, E> {
    fn or_never(self, reason: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::Never(error.into().context(reason.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questioned() -> Result<u8, Fault> {
        Ok("x".parse::<u8>()?)
    }

    #[test]
    fn a_question_mark_means_later() {
        assert!(matches!(questioned(), Err(Fault::Later(_))));
    }

    #[test]
    fn never_is_written_out() {
        assert!(matches!(None::<u8>.or_never("gone"), Err(Fault::Never(_))));
        assert!(matches!("x".parse::<u8>().or_never("odd"), Err(Fault::Never(_))));
    }
}
