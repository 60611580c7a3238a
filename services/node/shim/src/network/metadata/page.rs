//! Refusals, in the form in which the original gives them.

/// The original's page for a status, which some programs look at, with what else there is to say.
pub fn refusal(status: u16, reason: Option<&str>) -> String {
    let title = match status {
        400 => "400 - Bad Request",
        401 => "401 - Unauthorized",
        403 => "403 - Forbidden",
        405 => "405 - Method Not Allowed",
        413 => "413 - Payload Too Large",
        503 => "503 - Service Unavailable",
        _ => "404 - Not Found",
    };
    let reason = reason.map(|reason| format!("  <p>{reason}</p>\n")).unwrap_or_default();
    format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n \
         <body>\n  <h1>{title}</h1>\n{reason} </body>\n</html>\n"
    )
}
