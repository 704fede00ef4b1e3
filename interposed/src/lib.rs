//! The reactor and the blocking driver of lariat over a simulated system, beside lariat's own
//! simulator: [snare](https://crates.io/crates/snare) takes the place of the C library's sockets,
//! `epoll`, time, locks and thread switches, in this process and for every call that std, mio and
//! lariat make. Both drivers run unmodified. `README.md` says what runs and what does not.
