//! What every program of the chain shares: worker loop, broker, bodies, listeners, telemetry, shutdown.
