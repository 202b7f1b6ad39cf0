//! vitalstream's optional native kernel. What it accepts, it reads and writes as the Python code does, bit for bit.

mod cursor;
mod scan;
mod times;
mod write;

/// The Python module.
#[pyo3::pymodule]
mod vitalstream_native {
    #[pymodule_export]
    use crate::scan::Scanner;

    #[pymodule_export]
    use crate::write::rows_of;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
