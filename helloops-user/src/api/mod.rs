//! The HTTP/JSON API on a Unix socket, its client, and the types that all views share.
