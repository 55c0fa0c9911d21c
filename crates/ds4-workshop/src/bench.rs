//! Speed over the depth of the context.
