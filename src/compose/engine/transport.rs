//! What ureq needs to speak HTTP over the engine's socket.
//!
//! The traits are ureq's own for this purpose. It calls them unversioned: a new minor version may change them, and the
//! compiler says so.

use std::io::{self, Read as _, Write as _};

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
};

use super::endpoint::{Endpoint, EngineStream};

/// Connects to the engine, whatever host a request names.
#[derive(Debug)]
pub(super) struct EngineConnector(pub(super) Endpoint);

impl Connector for EngineConnector {
    type Out = EngineTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<EngineTransport>, Error> {
        let connection = self
            .0
            .connect(*details.timeout.after)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot connect to {}: {e}", self.0)))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(EngineTransport { connection, buffers }))
    }
}

#[derive(Debug)]
pub(super) struct EngineTransport {
    connection: EngineStream,
    buffers: LazyBuffers,
}

impl EngineTransport {
    /// Does one read or write within `timeout`.
    fn within<T>(&mut self, timeout: NextTimeout, work: impl FnOnce(&mut Self) -> io::Result<T>) -> Result<T, Error> {
        self.connection.set_timeouts(*timeout.after, *timeout.after)?;
        work(self).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
            _ => e.into(),
        })
    }
}

impl Transport for EngineTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.within(timeout.for_write(), |this| (&this.connection).write_all(&this.buffers.output()[..amount]))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.within(timeout.for_read(), |this| {
            let read = (&this.connection).read(this.buffers.input_append_buf())?;
            this.buffers.input_appended(read);
            Ok(read > 0)
        })
    }

    /// A connection that is kept has nothing to read; one that the engine has closed reads its end.
    fn is_open(&mut self) -> bool {
        let quiet = self.connection.set_nonblocking(true).is_ok()
            && (&self.connection).read(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        self.connection.set_nonblocking(false).is_ok() && quiet
    }
}
