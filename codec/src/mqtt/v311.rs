//! What only MQTT 3.1 and 3.1.1 have: return codes.

use super::ReasonCode;
use crate::error::ProtocolError;

/// Return code of a CONNACK for a Reason Code. MQTT 3.1.1, 3.2.2.3.
pub(crate) const fn return_code(code: ReasonCode) -> Option<u8> {
    Some(match code {
        ReasonCode::SUCCESS => 0,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
        ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::SERVER_SHUTTING_DOWN
        | ReasonCode::PACKET_TOO_LARGE
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::USE_ANOTHER_SERVER
        | ReasonCode::SERVER_MOVED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => 3,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
        ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED => 5,
        _ => return None,
    })
}

/// Checks the return code of a CONNACK: 0 to 5.
pub(crate) fn check_connack(code: u8) -> Result<(), ProtocolError> {
    if code > 5 {
        return Err(ProtocolError::CodeNotListed {
            packet: "CONNACK",
            code,
        });
    }
    Ok(())
}

/// Checks the return codes of a SUBACK: 0, 1, 2 or 0x80.
pub(crate) fn check_suback(codes: &[u8]) -> Result<(), ProtocolError> {
    // [MQTT3-3.9.3-2]
    match codes.iter().find(|code| !matches!(code, 0..=2 | 0x80)) {
        Some(code) => Err(ProtocolError::CodeNotListed {
            packet: "SUBACK",
            code: *code,
        }),
        None => Ok(()),
    }
}
