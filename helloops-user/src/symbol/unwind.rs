//! Walks a captured stack from callee to caller by call frame information, with all general
//! registers, through signal frames and the vDSO; by frame pointer only where there is no such
//! information, as in code that a just-in-time compiler wrote.

use gimli::{
    CfaRule, Evaluation, EvaluationResult, Expression, Location, Register, RegisterRule,
    UnwindContext, UnwindSection, Value, X86_64,
};

use super::capture::{CodeAddress, RawStack, Registers, StackCopy};
use super::cfi::{Reader, Row, UseRow};
use super::mapping::{self, Mapping};
use super::module::Modules;

/// The most operations that one DWARF expression may take; those of compilers take five or so.
const MAX_OPERATIONS: u32 = 256;

/// Why a stack was not unwound up to its root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Truncation {
    /// A register was saved beyond what was copied of the stack.
    #[error("only {copied} bytes of the stack were captured; the next frame is at {address:#x}")]
    StackCopy {
        /// How many bytes of the stack were at hand.
        copied: usize,
        /// The address that was needed.
        address: u64,
    },
    /// The code is in no executable mapping.
    #[error("{address:#x} is in no executable mapping of the process")]
    Unmapped {
        /// The code's address.
        address: u64,
    },
    /// Nothing says how to leave the function.
    #[error("{module} has no unwind information for {address:#x}, and no frame pointer helps")]
    NoInformation {
        /// The file, or what stands for it.
        module: String,
        /// The code's address.
        address: u64,
    },
    /// The file that holds the code could not be read.
    #[error("cannot unwind through {address:#x}: {reason}")]
    Unreadable {
        /// The code's address.
        address: u64,
        /// What is wrong with the file.
        reason: String,
    },
    /// The information is not one that makes sense.
    #[error("the unwind information at {address:#x} cannot be evaluated")]
    Nonsense {
        /// The code's address.
        address: u64,
    },
    /// The walk came back to where it had been.
    #[error("the caller of {address:#x} is not further up the stack")]
    NoProgress {
        /// The code's address.
        address: u64,
    },
    /// There are more frames than are kept.
    #[error("only the innermost {limit} frames are kept")]
    Depth {
        /// How many are kept.
        limit: usize,
    },
}

/// Registers by DWARF number: 0 to 15 the general ones, 16 the return address (System V ABI for
/// x86-64, figure 3.36). All count as preserved by a call unless the information says otherwise,
/// as unwinders of exceptions have it.
#[derive(Debug, Clone, Copy)]
struct RegisterFile([u64; 17]);

impl RegisterFile {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }

    fn set(&mut self, register: Register, value: u64) {
        if let Some(slot) = self.0.get_mut(usize::from(register.0)) {
            *slot = value;
        }
    }

    fn ip(&self) -> u64 {
        self.get(X86_64::RA).unwrap_or_default()
    }

    fn sp(&self) -> u64 {
        self.get(X86_64::RSP).unwrap_or_default()
    }

    fn bp(&self) -> u64 {
        self.get(X86_64::RBP).unwrap_or_default()
    }
}

impl From<&Registers> for RegisterFile {
    fn from(r: &Registers) -> Self {
        Self([
            r.ax, r.dx, r.cx, r.bx, r.si, r.di, r.bp, r.sp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
            r.r14, r.r15, r.ip,
        ])
    }
}

/// What lies beyond a frame.
enum Caller {
    /// A frame that called this one.
    Called(RegisterFile),
    /// A frame that a signal interrupted; this one is where its handler returns to.
    Interrupted(RegisterFile),
    /// Nothing: this is the thread's first function.
    None,
}

/// Walks the stack, innermost frame first, keeping at most `limit` frames.
pub(super) fn unwind(
    modules: &mut Modules,
    context: &mut UnwindContext<usize>,
    mappings: &[Mapping],
    registers: &Registers,
    stack: &StackCopy,
    limit: usize,
) -> RawStack {
    let mut registers = RegisterFile::from(registers);
    let mut frames = vec![CodeAddress::Instruction(registers.ip())];
    let mut code = CodeAddress::Instruction(registers.ip());
    let truncated = loop {
        let caller = match mapping::find(mappings, code.lookup()) {
            Some(mapping) => {
                let frame = CurrentFrame {
                    registers: &registers,
                    code,
                    stack,
                    mappings,
                };
                frame.caller(modules, context, mapping)
            }
            // The thread jumped to a bad address: the call has pushed its return address, and
            // nothing has happened since.
            None if frames.len() == 1 => {
                return_of_wild_call(&registers, stack).ok_or(Truncation::Unmapped {
                    address: code.address(),
                })
            }
            None => Err(Truncation::Unmapped {
                address: code.address(),
            }),
        };
        let (next, next_code) = match caller {
            Ok(Caller::Called(next)) if next.sp() <= registers.sp() => {
                break Some(Truncation::NoProgress {
                    address: code.address(),
                });
            }
            Ok(Caller::Called(next)) => (next, CodeAddress::Return(next.ip())),
            // A handler may have run on a stack of its own, so the stack pointer may go anywhere.
            Ok(Caller::Interrupted(next)) => (next, CodeAddress::Instruction(next.ip())),
            Ok(Caller::None) => break None,
            Err(truncation) => break Some(truncation),
        };
        if next.ip() == 0 {
            break None;
        }
        if frames.len() >= limit {
            break Some(Truncation::Depth { limit });
        }
        frames.push(next_code);
        (registers, code) = (next, next_code);
    };
    RawStack { frames, truncated }
}

fn return_of_wild_call(registers: &RegisterFile, stack: &StackCopy) -> Option<Caller> {
    let mut caller = *registers;
    caller.set(X86_64::RA, stack.read(registers.sp(), 8)?);
    caller.set(X86_64::RSP, registers.sp().checked_add(8)?);
    Some(Caller::Called(caller))
}

/// The frame that is being left.
#[derive(Clone, Copy)]
struct CurrentFrame<'a> {
    registers: &'a RegisterFile,
    code: CodeAddress,
    stack: &'a StackCopy,
    mappings: &'a [Mapping],
}

impl CurrentFrame<'_> {
    fn caller(
        self,
        modules: &mut Modules,
        context: &mut UnwindContext<usize>,
        mapping: &Mapping,
    ) -> Result<Caller, Truncation> {
        let file_offset = mapping.offset_of(self.code.lookup());
        let by_information = match modules.get(mapping) {
            None => None,
            Some(Ok(module)) => {
                let image = module.image();
                image
                    .address_of_offset(file_offset)
                    .and_then(|address| module.cfi().with_row(image, address, context, ByRow(self)))
            }
            // The frame pointer would be a guess where a file exists that would have known.
            Some(Err(error)) => {
                return Err(Truncation::Unreadable {
                    address: self.code.address(),
                    reason: error.to_string(),
                });
            }
        };
        match by_information {
            Some(caller) => caller,
            None => self
                .caller_by_frame_pointer()
                .ok_or_else(|| Truncation::NoInformation {
                    module: match mapping.path.as_os_str().is_empty() {
                        true => "anonymous memory".to_owned(),
                        false => mapping.path.display().to_string(),
                    },
                    address: self.code.address(),
                }),
        }
    }

    /// The frame pointer points at the caller's, below the return address. Believed only if the
    /// stack and the mappings bear it out.
    fn caller_by_frame_pointer(self) -> Option<Caller> {
        let bp = self.registers.bp();
        if bp < self.registers.sp() || !bp.is_multiple_of(8) {
            return None;
        }
        let mut caller = *self.registers;
        caller.set(X86_64::RBP, self.stack.read(bp, 8)?);
        caller.set(X86_64::RA, self.stack.read(bp.checked_add(8)?, 8)?);
        caller.set(X86_64::RSP, bp.checked_add(16)?);
        let plausible = caller.ip() == 0 || mapping::find(self.mappings, caller.ip()).is_some();
        plausible.then_some(Caller::Called(caller))
    }

    fn read(self, address: u64, size: usize) -> Result<u64, Truncation> {
        self.stack.read(address, size).ok_or(Truncation::StackCopy {
            copied: self.stack.bytes.len(),
            address,
        })
    }

    fn nonsense(self) -> Truncation {
        Truncation::Nonsense {
            address: self.code.address(),
        }
    }
}

/// Applies a row of call frame information to the frame.
struct ByRow<'a>(CurrentFrame<'a>);

impl UseRow for ByRow<'_> {
    type Output = Result<Caller, Truncation>;

    fn use_row<'a, S: UnwindSection<Reader<'a>>>(self, row: &Row<'_, S>) -> Self::Output {
        let Self(frame) = self;
        match row.rules.register(row.return_address) {
            // How the thread's first function says that nobody called it.
            None | Some(RegisterRule::Undefined) => return Ok(Caller::None),
            Some(_) => {}
        }
        let cfa = match row.rules.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => frame
                .registers
                .get(*register)
                .ok_or_else(|| frame.nonsense())?
                .wrapping_add_signed(*offset),
            CfaRule::Expression(expression) => {
                let expression = expression.get(&row.section).map_err(|_| frame.nonsense())?;
                evaluate(frame, row, expression, None)?
            }
        };
        let mut caller = *frame.registers;
        // The CFA is by definition the caller's stack pointer (DWARF 5, 6.4), unless there is a
        // rule for that register.
        caller.set(X86_64::RSP, cfa);
        for (register, rule) in row.rules.registers() {
            // Vector registers never lead to a return address.
            if usize::from(register.0) >= caller.0.len() {
                continue;
            }
            if let Some(value) = restore(frame, row, cfa, rule)? {
                caller.set(*register, value);
            }
        }
        if row.return_address != X86_64::RA {
            let address = caller
                .get(row.return_address)
                .ok_or_else(|| frame.nonsense())?;
            caller.set(X86_64::RA, address);
        }
        Ok(if row.is_signal_frame {
            Caller::Interrupted(caller)
        } else {
            Caller::Called(caller)
        })
    }
}

/// A register's value in the caller; nothing where it keeps its value.
fn restore<'a, S: UnwindSection<Reader<'a>>>(
    frame: CurrentFrame<'_>,
    row: &Row<'_, S>,
    cfa: u64,
    rule: &RegisterRule<usize>,
) -> Result<Option<u64>, Truncation> {
    let expression = |expression: &gimli::UnwindExpression<usize>| {
        let expression = expression.get(&row.section).map_err(|_| frame.nonsense())?;
        evaluate(frame, row, expression, Some(cfa))
    };
    Ok(Some(match rule {
        RegisterRule::Undefined | RegisterRule::SameValue => return Ok(None),
        RegisterRule::Offset(offset) => frame.read(cfa.wrapping_add_signed(*offset), 8)?,
        RegisterRule::ValOffset(offset) => cfa.wrapping_add_signed(*offset),
        RegisterRule::Register(register) => frame
            .registers
            .get(*register)
            .ok_or_else(|| frame.nonsense())?,
        RegisterRule::Expression(address) => frame.read(expression(address)?, 8)?,
        RegisterRule::ValExpression(value) => expression(value)?,
        _ => return Err(frame.nonsense()),
    }))
}

/// Evaluates a DWARF expression; that of a register starts with the CFA on its stack.
fn evaluate<'a, S: UnwindSection<Reader<'a>>>(
    frame: CurrentFrame<'_>,
    row: &Row<'_, S>,
    expression: Expression<Reader<'a>>,
    cfa: Option<u64>,
) -> Result<u64, Truncation> {
    let nonsense = |_| frame.nonsense();
    let mut evaluation = Evaluation::new(expression.0, row.encoding);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut state = evaluation.evaluate().map_err(nonsense)?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = frame
                    .registers
                    .get(register)
                    .ok_or_else(|| frame.nonsense())?;
                evaluation
                    .resume_with_register(Value::Generic(value))
                    .map_err(nonsense)?
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                let value = frame.read(address, usize::from(size))?;
                evaluation
                    .resume_with_memory(Value::Generic(value))
                    .map_err(nonsense)?
            }
            _ => return Err(frame.nonsense()),
        };
    }
    match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Ok(address),
            _ => Err(frame.nonsense()),
        },
        _ => Err(frame.nonsense()),
    }
}
