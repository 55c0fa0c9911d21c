//! DeepSeek V4: shapes, weight binding, the Backend trait and the one forward pass.
