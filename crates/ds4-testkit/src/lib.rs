//! Development only: golden loaders and a backend built like a device.
