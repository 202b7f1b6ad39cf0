//! vitalstream's optional native kernel. It gives the same results as the Python code, bit for bit.

mod cursor;
mod histories;
mod scan;
mod sums;
mod times;
mod write;

/// The Python module. With VITALSTREAM_NATIVE=0 it can't be imported, as if it were not installed.
#[pyo3::pymodule]
mod vitalstream_native {
    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::scan::Scanner;

    #[pymodule_export]
    use crate::sums::LinearSums;

    #[pymodule_export]
    use crate::times::microseconds;

    #[pymodule_export]
    use crate::write::rows_of;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_: &Bound<'_, PyModule>) -> PyResult<()> {
        match std::env::var_os("VITALSTREAM_NATIVE") {
            Some(value) if value == "0" => Err(PyImportError::new_err("VITALSTREAM_NATIVE is 0")),
            _ => Ok(()),
        }
    }
}
